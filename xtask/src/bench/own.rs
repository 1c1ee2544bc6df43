//! What of a run is keyroll's own time, read from a trace of its system calls.
//!
//! Own time is CPU time, plus every interval in which no child runs and no request is outstanding. CPU time comes from the
//! kernel, of a run that nobody traces. The intervals come from `strace`, which sees what the program cannot hide or forget:
//! a child is there from the call that makes it to its SIGCHLD; a request is outstanding from the first byte that is sent
//! (or the call that connects) to the last byte that is received on that socket before the next is sent. A socket that stays open
//! without traffic (a pooled connection, an event stream after its last event) is not outstanding. A command that runs in a
//! container is a child in all but name; the engine tells its end by closing the stream, so there the close is the last byte.
//!
//! Both count against keyroll: work done while nothing else goes on is in both parts, and so is the time that tracing takes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How to trace. Children are followed too, because only so the kernel can pass over the calls that are of no interest; their
/// lines are left out again.
///
/// Each call that is traced costs the program some 0.1 ms, so only those are that a socket is used with: `read` and `write` are for
/// files. Were a socket read or written with them after all, its request would not be seen, and the time counted as keyroll's own.
pub(super) const STRACE: [&str; 8] = [
    "-f",
    "--seccomp-bpf",
    "-ttty",
    // As much as tells which request it is, and too little for a secret in it.
    "-s24",
    "-e",
    "trace=execve,connect,sendto,sendmsg,writev,recvfrom,recvmsg,readv,clone,clone3,fork,vfork,exit_group",
    "-e",
    "signal=SIGCHLD",
];

/// The intervals of a trace in which keyroll waited for nobody.
pub(super) fn alone(trace: &str) -> Alone {
    let own = own_threads(trace);
    let mut busy = Vec::new();
    let mut sockets: HashMap<&str, Socket> = HashMap::new();
    let mut receiving: HashMap<&str, &str> = HashMap::new();
    let mut making: HashMap<&str, f64> = HashMap::new();
    let mut children: HashMap<&str, f64> = HashMap::new();
    let (mut first, mut last) = (f64::MAX, 0_f64);
    for (thread, at, call) in trace.lines().filter_map(parts) {
        if !own.contains(thread) {
            continue;
        }
        first = first.min(at);
        last = last.max(at);
        if call.starts_with("--- SIGCHLD") {
            let start = between(call, "si_pid=", ",").and_then(|pid| children.remove(pid));
            busy.extend(start.map(|start| (start, at)));
        } else if makes_process(call) && !call.contains("CLONE_THREAD") {
            match result(call) {
                Some(pid) => drop(children.insert(pid, at)),
                None => drop(making.insert(thread, at)),
            }
        } else if made_process(call) {
            if let (Some(start), Some(pid)) = (making.remove(thread), result(call)) {
                children.insert(pid, start);
            }
        } else if let Some(socket) = between(call, "<socket:[", "]") {
            let state = sockets.entry(socket).or_default();
            if is_any(call, &["connect(", "send", "write"]) {
                state.sent(at, &mut busy);
                state.runs |= starts_command(call);
            } else if call.ends_with("<unfinished ...>") {
                receiving.insert(thread, socket);
            } else {
                state.received(at, result(call));
            }
        } else if is_any(call, &["<... recv", "<... read"])
            && let Some(state) = receiving.remove(thread).and_then(|s| sockets.get_mut(s))
        {
            state.received(at, result(call));
        }
    }
    for socket in sockets.values_mut() {
        socket.close(&mut busy);
    }
    gaps(first, last, busy)
}

/// The threads of the process that the trace begins with, and not those of its children.
fn own_threads(trace: &str) -> HashSet<&str> {
    let mut making: HashMap<&str, bool> = HashMap::new();
    let mut made: Vec<(&str, &str)> = Vec::new();
    let mut own = HashSet::new();
    for (thread, _, call) in trace.lines().filter_map(parts) {
        if own.is_empty() {
            own.insert(thread);
        }
        if makes_process(call) {
            making.insert(thread, call.contains("CLONE_THREAD"));
        } else if !made_process(call) {
            continue;
        }
        if let Some(new) = result(call)
            && making.remove(thread) == Some(true)
        {
            made.push((thread, new));
        }
    }
    // In the order in which the calls ended, so a maker is known before what it makes.
    for (maker, new) in made {
        if own.contains(maker) {
            own.insert(new);
        }
    }
    own
}

/// The sum, and the parts of at least a millisecond.
pub(super) struct Alone {
    pub(super) total: Duration,
    pub(super) longest: Vec<(Duration, Duration)>,
}

#[derive(Default)]
struct Socket {
    first: Option<f64>,
    last: Option<f64>,
    /// Whether it is the stream of a command in a container.
    runs: bool,
}

impl Socket {
    /// The first byte of a request, or one more.
    fn sent(&mut self, at: f64, busy: &mut Vec<(f64, f64)>) {
        if self.last.is_some() {
            self.close(busy);
        }
        self.first.get_or_insert(at);
    }

    /// Bytes, or the close of the stream (0), or neither.
    fn received(&mut self, at: f64, result: Option<&str>) {
        if result.is_some_and(|bytes| bytes != "0" || self.runs) {
            self.last = Some(at);
        }
    }

    fn close(&mut self, busy: &mut Vec<(f64, f64)>) {
        busy.extend(self.first.take().zip(self.last.take()));
    }
}

fn gaps(first: f64, last: f64, mut busy: Vec<(f64, f64)>) -> Alone {
    busy.sort_by(|a, b| a.0.total_cmp(&b.0));
    busy.push((last, last));
    let (mut reached, mut total, mut longest) = (first, 0.0, Vec::new());
    for (start, end) in busy {
        if start > reached {
            total += start - reached;
            if start - reached > 0.001 {
                longest.push((seconds(reached - first), seconds(start - reached)));
            }
        }
        reached = reached.max(end);
    }
    longest.sort_by_key(|gap| std::cmp::Reverse(gap.1));
    Alone {
        total: seconds(total),
        longest,
    }
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or_default()
}

/// Thread, time and call of a line such as `4711 1700000000.123456 read(9<socket:[17]>, ""..., 64) = 5`.
fn parts(line: &str) -> Option<(&str, f64, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (at, call) = rest.trim_start().split_once(' ')?;
    Some((thread, at.parse().ok()?, call))
}

/// The beginning of a call that makes a process or a thread.
fn makes_process(call: &str) -> bool {
    is_any(call, &["clone(", "clone3(", "fork(", "vfork("])
}

/// `POST /exec/<id>/start`, with the version of the interface or without, which turns the connection into the command's stream.
fn starts_command(call: &str) -> bool {
    let version = between(call, "\"POST /", "exec/").unwrap_or("?");
    version.is_empty() || version.starts_with('v') && version.find('/') == Some(version.len() - 1)
}

/// The end of one, when another thread's line came in between.
fn made_process(call: &str) -> bool {
    is_any(call, &["<... clone", "<... fork", "<... vfork"])
}

fn is_any(call: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| call.starts_with(start))
}

/// What a call returned, if it ended and did not fail.
fn result(call: &str) -> Option<&str> {
    let (_, result) = call.rsplit_once(" = ")?;
    let result = result.split_whitespace().next()?;
    result.bytes().all(|b| b.is_ascii_digit()).then_some(result)
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    Some(text.split_once(from)?.1.split_once(to)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_a_child_and_a_request_is_keyrolls_own() {
        let trace = "\
1 100.0 execve(\"/usr/bin/keyroll\", [\"keyroll\"], 0x7ffc /* 3 vars */) = 0
1 101.0 clone3({flags=CLONE_VM|CLONE_VFORK}, 88 <unfinished ...>
1 101.1 <... clone3 resumed>) = 77
1 101.2 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 78
1 103.0 --- SIGCHLD {si_signo=SIGCHLD, si_pid=77, si_uid=0} ---
77 103.5 sendto(4<socket:[6]>, \"\"..., 10) = 10
77 103.9 recvfrom(4<socket:[6]>, \"\"..., 10) = 10
78 104.0 sendto(9<socket:[5]>, \"\"..., 10) = 10
78 104.5 recvfrom(9<socket:[5]>, 0x1, 10) = -1 EAGAIN (again)
78 105.0 recvfrom(9<socket:[5]>, \"\"..., 10) = 10
78 105.4 recvfrom(9<socket:[5]>,  <unfinished ...>
1 105.45 read(3</etc/hosts>, \"\"..., 10) = 4
78 105.5 <... recvfrom resumed>\"\"..., 10) = 4
78 106.0 sendto(9<socket:[5]>, \"\"..., 10) = 10
78 107.0 recvfrom(9<socket:[5]>, \"\"..., 10) = 3
1 107.0 exit_group(0) = ?
";
        // 100 to 101, 103 to 104, 105.5 to 106.
        let alone = alone(trace);
        assert!((alone.total.as_secs_f64() - 2.5).abs() < 1e-6);
        assert_eq!(alone.longest.len(), 3);
    }

    #[test]
    fn a_command_in_a_container_runs_until_its_stream_is_closed() {
        let run = |request: &str| {
            let trace = format!(
                "\
1 1.0 sendto(4<socket:[8]>, \"{request}\"..., 90) = 90
1 1.5 recvfrom(4<socket:[8]>, \"HTTP/1.1\"..., 10) = 10
1 4.0 recvfrom(4<socket:[8]>, \"\", 10) = 0
1 5.0 exit_group(0) = ?
"
            );
            alone(&trace).total.as_secs_f64()
        };
        assert!((run("POST /v1.41/exec/0123456") - 1.0).abs() < 1e-6);
        assert!((run("POST /exec/0123456789abc") - 1.0).abs() < 1e-6);
        // The close of a connection that was merely kept is no answer.
        assert!((run("GET /v1.41/containers/js") - 3.5).abs() < 1e-6);
        assert!((run("POST /v1.41/containers/0") - 3.5).abs() < 1e-6);
    }

    #[test]
    fn a_socket_that_never_answers_hides_nothing() {
        let trace = "1 1.0 write(4<socket:[8]>, \"\"..., 1) = 1\n1 3.0 exit_group(0) = ?\n";
        assert!((alone(trace).total.as_secs_f64() - 2.0).abs() < 1e-6);
    }
}
