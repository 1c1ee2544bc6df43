//! A terminal, and somebody who sits in front of it.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use super::Bench;

/// A command that somebody sits in front of.
pub(crate) struct Terminal(Child);

impl Terminal {
    /// Waits until this is on the screen.
    pub(crate) fn shows(&mut self, text: &str) {
        let out = self.0.stdout.as_mut().unwrap();
        let (mut seen, mut byte) = (vec![], [0]);
        while !seen.ends_with(text.as_bytes()) {
            let read = out.read(&mut byte).unwrap();
            let seen_so_far = String::from_utf8_lossy(&seen);
            assert_ne!(read, 0, "{text:?} was not shown, but {seen_so_far}");
            seen.push(byte[0]);
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        let keyboard = self.0.stdin.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// What else appears, until the command has ended.
    pub(crate) fn reads_to_its_end(mut self) -> String {
        let mut rest = String::new();
        let mut out = self.0.stdout.take().unwrap();
        out.read_to_string(&mut rest).unwrap();
        self.0.wait().unwrap();
        rest
    }
}

impl Bench {
    /// Starts a command on a terminal of its own, which script(1) makes; for two minutes at most.
    pub(crate) fn terminal(&self, command: &[&str]) -> Terminal {
        let inner = self.keyroll.command(self.arguments(command));
        let words = [inner.get_program()].into_iter().chain(inner.get_args());
        let quoted: Vec<String> = words
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let mut script = Command::new("timeout");
        script
            .args(["--foreground", "120", "script"])
            .args(["--quiet", "--return", "--flush", "--command"])
            .args([&quoted.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Terminal(script.spawn().unwrap())
    }
}
