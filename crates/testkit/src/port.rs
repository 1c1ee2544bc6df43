//! A free port for each stack, held for the stack's life although nobody listens while a container is recreated.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::{TestkitError, sweep};

/// Below the range from which the kernel takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port that no other stack on this machine uses. Freed when dropped.
pub(crate) struct Port {
    pub(crate) number: u16,
    held: File,
}

impl Port {
    /// Takes one of the sandbox's; four random hex digits spread stacks that start together.
    pub(crate) fn near(random: &str) -> Result<Self, TestkitError> {
        let seed = u16::from_str_radix(random, 16).unwrap_or(0);
        Self::take(&sweep::sandbox().join("ports"), seed)
    }

    /// Takes one; `seed` spreads stacks that start together. The lock files are kept in `directory`.
    pub(crate) fn take(directory: &Path, seed: u16) -> Result<Self, TestkitError> {
        fs::create_dir_all(directory).map_err(TestkitError::io(directory))?;
        for step in 0..COUNT {
            let number = FIRST + seed.wrapping_add(step) % COUNT;
            if let Some(port) = Self::hold(directory, number)? {
                return Ok(port);
            }
        }
        Err(TestkitError::Unexpected(
            "no free port for the panel".to_owned(),
        ))
    }

    /// The lock alone: the port is taken as long as it is open.
    pub(crate) fn into_lock(self) -> File {
        self.held
    }

    fn hold(directory: &Path, number: u16) -> Result<Option<Self>, TestkitError> {
        let path = directory.join(number.to_string());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(TestkitError::io(&path))?;
        let free =
            file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(free.then_some(Self { number, held: file }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A process that another test has just started holds this one's files and sockets until it runs its program.
    fn soon<T>(mut done: impl FnMut() -> Option<T>) -> T {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(value) = done() {
                return value;
            }
            assert!(Instant::now() < limit, "not in time");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_port_that_is_held_or_listened_on_is_not_given_out_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = Port::take(directory.path(), 7).unwrap();
        let second = Port::take(directory.path(), 7).unwrap();
        assert_ne!(first.number, second.number);

        let number = first.number;
        drop(first);
        let listener = soon(|| TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok());
        assert_ne!(Port::take(directory.path(), 7).unwrap().number, number);
        drop(listener);
        soon(|| {
            let again = Port::take(directory.path(), 7).unwrap();
            (again.number == number).then_some(())
        });
    }
}
