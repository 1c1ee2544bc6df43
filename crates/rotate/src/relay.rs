//! A way to the database through a container on its network, where this host has none.
//!
//! A command in that container passes bytes on, between its standard input and output and a TCP connection; keyroll speaks the
//! database's protocol itself, through it. So nothing is asked of the container but a program that can open a connection, and
//! the command learns no password: its arguments are the address and the port, and with SCRAM what it passes on holds none.
//!
//! Images have different programs, and a program of one name different habits (`nc` is at least four). So each is tried, until
//! one shows the server's answer. Each ends when its input does, or when keyroll sees it not do so ([`ExecStream`]); those of
//! a keyroll that was killed carry the rotation's mark.
//!
//! [`ExecStream`]: keyroll_runtimes::compose::ExecStream

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use keyroll_providers::postgres::{Connect, Opening, Stream, greet};
use keyroll_runtimes::compose::{Engine, Exec, ExecError};

/// Time for a program to be started in a container.
const STARTED_WITHIN: Duration = Duration::from_secs(10);
/// Time for it to be started, to reach the server and to bring its answer back.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A program that can relay, and its words before the address.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    words: &'static [&'static str],
}

/// Two `cat`s, which know nothing of one another: whichever ends, the other is ended.
const BASH: &str = r#"exec 3<>"/dev/tcp/$1/$2" 4<&0 || exit 1
cat <&3 4<&- & a=$!
cat <&4 >&3 & b=$!
wait -n; kill $a $b 2>/dev/null; wait"#;

const PERL: &str = r#"use IO::Socket::IP; use IO::Select;
my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1]) or die "$@\n";
my $both = IO::Select->new($s, \*STDIN);
while (1) { for my $from ($both->can_read) {
  my $n = sysread($from, my $bytes, 65536) or exit;
  my $to = $from == $s ? \*STDOUT : $s;
  for (my $done = 0; $done < $n;) { $done += syswrite($to, $bytes, $n - $done, $done) // exit 1 }
} }"#;

const PYTHON: &str = r"import os, select, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for f in select.select([s, 0], [], [])[0]:
        b = os.read(f if f == 0 else s.fileno(), 65536)
        if not b: sys.exit()
        if f == 0: s.sendall(b)
        while f != 0 and b: b = b[os.write(1, b):]";

const NODE: &str = r#"const s = require("net").connect(+process.argv[2], process.argv[1])
s.on("error", e => { console.error(e.message); process.exit(1) })
s.on("data", b => process.stdout.write(b)).on("end", () => process.stdout.write("", () => process.exit()))
process.stdin.on("data", b => s.write(b)).on("end", () => s.end(() => process.exit()))"#;

/// The lightest first. Each ends with its input, or, as `nc` does, when the server has ended the session for it; a plain `nc`
/// may not tell the server, and comes last.
pub(crate) const PROGRAMS: [Program; 7] = [
    program("bash", &["bash", "-c", BASH, "bash"]),
    program("busybox", &["busybox", "nc"]),
    program("nc -N", &["nc", "-N"]),
    program("perl", &["perl", "-e", PERL]),
    program("python3", &["python3", "-c", PYTHON]),
    program("node", &["node", "-e", NODE]),
    program("nc", &["nc"]),
];

const fn program(name: &'static str, words: &'static [&'static str]) -> Program {
    Program { name, words }
}

/// The way through one container by one program.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) engine: Engine,
    /// The container's id.
    pub(crate) container: String,
    /// As people name it.
    pub(crate) name: String,
    pub(crate) program: &'static Program,
    /// Where the server listens, as that container sees it.
    pub(crate) server: SocketAddr,
    /// The mark.
    pub(crate) rotation: String,
}

impl Program {
    fn command(&self, server: SocketAddr) -> Vec<String> {
        let mut words: Vec<String> = self.words.iter().map(|&word| word.to_owned()).collect();
        words.extend([server.ip().to_string(), server.port().to_string()]);
        words
    }
}

impl Relay {
    /// Whether a server answers on this way; [`io::ErrorKind::NotFound`] where the program is not there.
    pub(crate) async fn is_answered(&self) -> io::Result<()> {
        let asked = async {
            let mut stream = self.connect().await?;
            match greet(&mut *stream).await {
                // The engine's own words for a program that it cannot run come as if the program said them.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    let end = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    Err(end.err().unwrap_or(e))
                }
                greeted => greeted,
            }
        };
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        tokio::time::timeout(ANSWERED_WITHIN, asked)
            .await
            .unwrap_or_else(late)
    }
}

impl Connect for Relay {
    fn connect(&self) -> Opening<'_> {
        Box::pin(async {
            let exec = Exec::new(&self.container, self.program.command(self.server))
                .limit(STARTED_WITHIN)
                .rotation(&self.rotation);
            match self.engine.exec_stream(&exec).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(error @ ExecError::NotStarted { .. }) => {
                    Err(io::Error::new(io::ErrorKind::NotFound, error))
                }
                Err(error) => Err(io::Error::other(error)),
            }
        })
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through container {}", self.server, self.name)
    }
}
