//! Processes that a rotation started and that outlived whoever started them.
//!
//! The problem: killing a client does not stop what it asked for. A `docker compose` goes on after keyroll died, and a
//! command inside a container goes on after its exec's client was cut off. A second run beside such a one breaks the promise
//! of one rotation at a time. So everything that keyroll starts carries the rotation's id in its environment, under
//! [`MARK`]; containers share the host's kernel, so `/proc/<pid>/environ` shows it wherever the process runs.
//!
//! What this cannot see: a process that was started with an emptied environment **and** whose marked parent is gone, and one
//! that overwrites its own environment (`PostgreSQL`'s server does; its clients do not). Children of a marked process that is
//! still there are found whatever their environment.
//!
//! Needs root, or the same user as all of these processes: a process that may not be read is named in
//! [`Found::unreadable`], for "could not look" is not "none". For root there is none in practice: kernel threads and zombies have
//! no environment, which is known without reading one, and a process in another namespace of pids or users reads like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

/// The environment variable that holds the rotation's id, in every child and every command inside a container.
pub const MARK: &str = "KEYROLL_ROTATION";

/// The environment variable that tells two calls of one rotation apart.
pub(crate) const CALL: &str = "KEYROLL_CALL";

/// A process of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The process id as the host sees it.
    pub pid: i32,
    /// The kernel's name of the program, at most 15 characters. Not its arguments, which may hold anything.
    pub what: String,
    /// The id of the container that it runs in, or `None` on the host itself.
    pub in_container: Option<String>,
    /// When it started, in clock ticks since boot: with the pid, its identity.
    started: u64,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The processes, by pid.
    pub orphans: Vec<Orphan>,
    /// Processes that are there and may not be looked into. Any of them could be one of the rotation's.
    pub unreadable: Vec<Unreadable>,
}

/// A process that may not be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The process id as the host sees it.
    pub pid: i32,
    /// The kernel's name of the program.
    pub what: String,
    /// The system's words.
    pub reason: String,
    started: u64,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid, what, reason, ..
        } = self;
        write!(f, "process {pid} ({what}) may not be looked into: {reason}")
    }
}

/// Processes of a rotation could not be searched for, or not be ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OrphanError {
    /// The process table could not be read.
    #[error("could not look for processes in {path}: {reason}; nothing was changed")]
    Unknown {
        /// The path.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// Whether one of them is still there could not be seen.
    #[error(
        "whether process {pid} ({what}) is still there could not be seen: {reason}; see with `ps -p {pid}`, and end it by hand before going on"
    )]
    Unseen {
        /// The process.
        pid: i32,
        /// The kernel's name of the program.
        what: String,
        /// The system's words.
        reason: String,
    },
    /// Some are still there, after SIGTERM and SIGKILL.
    #[error(
        "{} still there after SIGKILL and {limit:?}: {}; end them by hand before going on",
        if .left.len() == 1 { "a process is" } else { "processes are" },
        .left.iter().map(|o| format!("{} ({})", o.pid, o.what)).collect::<Vec<_>>().join(", ")
    )]
    Left {
        /// The processes.
        left: Vec<Orphan>,
        /// How long was waited.
        limit: Duration,
    },
}

/// One process as the table shows it.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    name: String,
    started: u64,
    /// A thread of the kernel itself: it has no environment, and nobody starts one by hand.
    kernel: bool,
}

/// Every process on this host, also inside containers, that carries `rotation` in its environment or descends from one that
/// does; without this process itself and its ancestors. Blocks for the reading of `/proc`, some milliseconds.
pub fn find(rotation: &str) -> Result<Found, OrphanError> {
    search(MARK, rotation)
}

/// As [`find`], for a single call of this process. What is older than this process cannot be of its calls.
pub(crate) fn find_call(call: &str) -> Result<Found, OrphanError> {
    let mut found = search(CALL, call)?;
    let own = read_process(own_pid()).map_err(unknown)?;
    let since = own.map_or(0, |own| own.started);
    found.unreadable.retain(|process| process.started >= since);
    Ok(found)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives the error away"
)]
fn unknown(error: io::Error) -> OrphanError {
    OrphanError::Unknown {
        path: "/proc".into(),
        reason: error.to_string(),
    }
}

/// The process ended while we looked.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn search(key: &str, value: &str) -> Result<Found, OrphanError> {
    let wanted = format!("{key}={value}").into_bytes();
    let mut table = BTreeMap::new();
    let mut marked = BTreeSet::new();
    let mut found = Found::default();
    for entry in fs::read_dir("/proc").map_err(unknown)? {
        let name = entry.map_err(unknown)?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let Some(process) = read_process(pid).map_err(unknown)? else {
            continue; // ended while we looked, or a zombie
        };
        if !process.kernel {
            match fs::read(format!("/proc/{pid}/environ")) {
                Ok(environ) => {
                    if environ.split(|b| *b == 0).any(|line| line == wanted) {
                        marked.insert(pid);
                    }
                }
                Err(e) if is_gone(&e) => {}
                // It may have ended between the two looks; else it may be one of ours.
                Err(e) if is_there(pid, &process)? => found.unreadable.push(Unreadable {
                    pid,
                    what: process.name.clone(),
                    reason: e.to_string(),
                    started: process.started,
                }),
                Err(_) => {}
            }
        }
        table.insert(pid, process);
    }
    let ours = ancestors(&table, own_pid());
    for pid in with_descendants(&table, marked, &ours) {
        let process = &table[&pid];
        found.orphans.push(Orphan {
            pid,
            what: process.name.clone(),
            in_container: container_of(pid),
            started: process.started,
        });
    }
    let known = |pid| ours.contains(&pid) || found.orphans.iter().any(|o| o.pid == pid);
    found.unreadable.retain(|process| !known(process.pid));
    Ok(found)
}

/// Whether this very process is still there.
fn is_there(pid: i32, process: &Process) -> Result<bool, OrphanError> {
    let now = read_process(pid).map_err(unknown)?;
    Ok(now.is_some_and(|now| now.started == process.started))
}

/// This process and all it descends from.
fn ancestors(table: &BTreeMap<i32, Process>, of: i32) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    let mut at = of;
    while all.insert(at) {
        match table.get(&at) {
            Some(process) if process.parent > 0 => at = process.parent,
            _ => break,
        }
    }
    all
}

/// The marked processes and what descends from them, without `ours`.
fn with_descendants(
    table: &BTreeMap<i32, Process>,
    mut marked: BTreeSet<i32>,
    ours: &BTreeSet<i32>,
) -> BTreeSet<i32> {
    marked.retain(|pid| !ours.contains(pid) && table.contains_key(pid));
    loop {
        let more: Vec<i32> = table
            .iter()
            .filter(|(pid, p)| {
                marked.contains(&p.parent) && !marked.contains(pid) && !ours.contains(pid)
            })
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return marked;
        }
        marked.extend(more);
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// What `/proc/<pid>/stat` says (proc(5)); `None` when it is gone or a zombie.
fn read_process(pid: i32) -> io::Result<Option<Process>> {
    // A program may give itself a name of any bytes.
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_stat(&String::from_utf8_lossy(&stat)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Of a kernel thread, among the flags of a process (`PF_KTHREAD` in the kernel's `sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

fn parse_stat(stat: &str) -> io::Result<Option<Process>> {
    let parsed = || {
        // The name is in parentheses and may hold any character, parentheses too.
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let process = Process {
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            started: fields.get(19)?.parse().ok()?,
            kernel: fields.get(6)?.parse::<u64>().ok()? & KERNEL_THREAD != 0,
        };
        Some((!matches!(*fields.first()?, "Z" | "X")).then_some(process))
    };
    parsed().ok_or_else(|| io::Error::other(format!("unexpected status of a process: {stat:?}")))
}

/// The container's id from the control group's path: 64 hexadecimal digits (`/docker/<id>`, `docker-<id>.scope`).
fn container_of(pid: i32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    container_in(&groups)
}

fn container_in(groups: &str) -> Option<String> {
    groups
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|word| word.len() == 64)
        .map(str::to_owned)
}

/// Ends these processes: SIGTERM, then SIGKILL after half of `limit`, and returns when all of them are gone. A pid that has
/// been given to another process since [`find`] is left alone.
pub async fn end(orphans: &[Orphan], limit: Duration) -> Result<(), OrphanError> {
    let start = Instant::now();
    let open = handles(orphans)?;
    signal(&open, Signal::TERM);
    let open = gone_until(open, start + limit / 2).await?;
    signal(&open, Signal::KILL);
    let left = gone_until(open, start + limit).await?;
    if left.is_empty() {
        return Ok(());
    }
    let left = left.into_iter().map(|(orphan, _)| orphan).collect();
    Err(OrphanError::Left { left, limit })
}

/// Waits until these processes are gone by themselves. False when `limit` ends first.
pub async fn gone_within(orphans: &[Orphan], limit: Duration) -> Result<bool, OrphanError> {
    let left = gone_until(handles(orphans)?, Instant::now() + limit).await?;
    Ok(left.is_empty())
}

/// A process with a handle that stays with this very process (`pidfd_open(2)`).
type Open = (Orphan, OwnedFd);

/// Those that are still there.
fn handles(orphans: &[Orphan]) -> Result<Vec<Open>, OrphanError> {
    handles_by(orphans, |pid| pidfd_open(pid, PidfdFlags::empty()))
}

fn handles_by(
    orphans: &[Orphan],
    open: impl Fn(Pid) -> Result<OwnedFd, Errno>,
) -> Result<Vec<Open>, OrphanError> {
    let mut all = vec![];
    for orphan in orphans {
        let unseen = |e: io::Error| OrphanError::Unseen {
            pid: orphan.pid,
            what: orphan.what.clone(),
            reason: e.to_string(),
        };
        let Some(pid) = Pid::from_raw(orphan.pid) else {
            continue;
        };
        let fd = match open(pid) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => continue,
            // No more descriptors, a kernel without the call: that says nothing about the process.
            Err(e) => return Err(unseen(e.into())),
        };
        // Looked at after the handle exists: from here on the pid cannot mean another process unnoticed.
        let now = read_process(orphan.pid).map_err(unseen)?;
        if now.is_some_and(|now| now.started == orphan.started) {
            all.push((orphan.clone(), fd));
        }
    }
    Ok(all)
}

fn signal(open: &[Open], signal: Signal) {
    for (_, fd) in open {
        let _ = pidfd_send_signal(fd, signal); // who is not allowed to finds it still there at the end
    }
}

/// Waits for the end of each; returns those that are still there then. Waits on a thread of its own.
async fn gone_until(open: Vec<Open>, until: Instant) -> Result<Vec<Open>, OrphanError> {
    let waiting = tokio::task::spawn_blocking(move || {
        let mut open = open;
        while !open.is_empty() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).ok();
            // A pidfd becomes readable when its process ends.
            let mut fds: Vec<PollFd> = open
                .iter()
                .map(|(_, fd)| PollFd::new(fd, PollFlags::IN))
                .collect();
            let _ = poll(&mut fds, limit.as_ref()); // interrupted: once more
            let ended = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN));
            let mut ended = ended.collect::<Vec<bool>>().into_iter();
            open.retain(|_| !ended.next().unwrap_or(false));
        }
        open
    });
    waiting
        .await
        .map_err(|e| unknown(io::Error::other(e.to_string())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    const STAT: &str = "4242 (a) b (c) S 17 4242 4242 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 \
                        987654 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let process = parse_stat(STAT).unwrap().unwrap();
        assert_eq!(
            (process.parent, process.name.as_str(), process.started),
            (17, "a) b (c", 987_654)
        );
    }

    #[test]
    fn a_zombie_is_gone() {
        let zombie = STAT.replace(") S ", ") Z ");
        assert_eq!(parse_stat(&zombie).unwrap(), None);
        assert!(
            parse_stat("4242 (a").is_err(),
            "what cannot be read is not gone"
        );
    }

    #[test]
    fn for_root_every_process_but_a_callers_ancestor_can_be_looked_into() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // A zombie is there while we look.
        let mut zombie = std::process::Command::new("true").spawn().unwrap();
        let found = find("a rotation that nobody began").unwrap();
        zombie.wait().unwrap();
        assert_eq!(found, Found::default());
    }

    #[test]
    fn a_process_whose_name_is_no_text_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"sl\xe4ep");
        let program = directory.path().join(name);
        fs::copy("/bin/sleep", &program).unwrap();
        let mark = format!("name-{}", own_pid());
        let mut child = std::process::Command::new(&program)
            .arg("100")
            .env(MARK, &mark)
            .spawn()
            .unwrap();
        let found = find(&mark).unwrap().orphans;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_process_that_cannot_be_watched_is_not_taken_for_gone() {
        let orphan = Orphan {
            pid: own_pid(),
            what: "here".into(),
            in_container: None,
            started: read_process(own_pid()).unwrap().unwrap().started,
        };
        let asked = |answer| handles_by(std::slice::from_ref(&orphan), |_| Err(answer));
        assert!(asked(Errno::SRCH).unwrap().is_empty(), "that is gone");
        for no_answer in [Errno::MFILE, Errno::NOSYS, Errno::PERM] {
            let error = asked(no_answer).unwrap_err();
            assert!(matches!(error, OrphanError::Unseen { .. }), "{error}");
        }
    }

    #[test]
    fn the_container_is_read_from_either_kind_of_control_group() {
        let id = "0123456789abcdef".repeat(4);
        for line in [
            format!("12:pids:/docker/{id}\n0::/\n"),
            format!("0::/system.slice/docker-{id}.scope\n"),
        ] {
            assert_eq!(container_in(&line), Some(id.clone()));
        }
        assert_eq!(container_in("0::/user.slice/session-1.scope\n"), None);
    }

    fn table(links: &[(i32, i32)]) -> BTreeMap<i32, Process> {
        let process = |parent| Process {
            parent,
            name: "x".into(),
            started: 1,
            kernel: false,
        };
        links.iter().map(|(pid, up)| (*pid, process(*up))).collect()
    }

    #[test]
    fn children_of_a_marked_process_belong_to_it_and_the_caller_never_does() {
        let table = table(&[(1, 0), (10, 1), (11, 10), (12, 11), (20, 1), (21, 20)]);
        let ours = ancestors(&table, 21);
        assert_eq!(ours, BTreeSet::from([21, 20, 1]));
        // 20 is marked, but it is the caller's own parent.
        let found = with_descendants(&table, BTreeSet::from([10, 20]), &ours);
        assert_eq!(found, BTreeSet::from([10, 11, 12]));
    }
}
