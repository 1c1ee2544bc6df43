//! Telling the system journal, over the native protocol of journald (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! The head of the trail goes there because it is out of reach of whoever can only edit keyroll's database, and is often shipped to
//! another host at once.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How long a full queue of journald is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The kernel took it for the listening journald. The protocol has no answer: whether it is on disk is not known.
    Sent,
    /// Nobody listens: no systemd on this host, or in this container. The reason is for people.
    NotThere(String),
}

/// Why a message could not be sent although somebody listens, or is not one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SystemJournalError {
    /// A field name that journald would drop without a word.
    #[error(
        "{name:?} is no field name of the system journal: 1 to 64 of A-Z 0-9 _, starting with a letter"
    )]
    FieldName {
        /// The name.
        name: String,
    },
    /// The message could not be sent. Whether journald got it is not known after a timeout.
    #[error(
        "cannot send to the system journal at {path}: {source}; the trail itself is not touched by this"
    )]
    Send {
        /// The socket.
        path: PathBuf,
        /// The system's reason; `WouldBlock` or `TimedOut` when journald did not read for two seconds.
        source: io::Error,
    },
}

/// Sends one entry of `fields` (name and value) to the socket at `path`, normally [`SOCKET`].
///
/// Journald shows the field `MESSAGE`; `PRIORITY` is `0` (emergency) to `7` (debug). Values may hold anything, line
/// breaks too. One datagram, so some 200 KB at the most. Blocks for two seconds at the most.
pub fn send(path: &Path, fields: &[(&str, &str)]) -> Result<Delivery, SystemJournalError> {
    let message = encode(fields)?;
    let failed = |source| SystemJournalError::Send {
        path: path.to_owned(),
        source,
    };
    let socket = UnixDatagram::unbound().map_err(failed)?;
    socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    match socket.send_to(&message, path) {
        Ok(_) => Ok(Delivery::Sent),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(Delivery::NotThere(format!("{}: {e}", path.display())))
        }
        Err(e) => Err(failed(e)),
    }
}

fn encode(fields: &[(&str, &str)]) -> Result<Vec<u8>, SystemJournalError> {
    let mut message = Vec::new();
    for (name, value) in fields {
        // A leading underscore is journald's own; other names it ignores silently.
        let fits = (1..=64).contains(&name.len())
            && name.as_bytes()[0].is_ascii_uppercase()
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !fits {
            return Err(SystemJournalError::FieldName {
                name: (*name).to_owned(),
            });
        }
        message.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            message.push(b'\n');
            message.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            message.push(b'=');
        }
        message.extend_from_slice(value.as_bytes());
        message.push(b'\n');
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_datagram_carries_all_fields_and_line_breaks_cannot_forge_one() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let fields = [
            ("MESSAGE", "rotated"),
            ("KEYROLL_REASON", "a\nPRIORITY=0"),
            ("PRIORITY", "5"),
        ];
        assert_eq!(send(&path, &fields).unwrap(), Delivery::Sent);
        let mut buffer = [0; 1000];
        let n = listener.recv(&mut buffer).unwrap();
        let expected =
            b"MESSAGE=rotated\nKEYROLL_REASON\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nPRIORITY=5\n";
        assert_eq!(&buffer[..n], expected);
    }

    #[test]
    fn a_host_without_journald_is_an_answer_and_no_error() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("socket");
        assert!(matches!(
            send(&path, &[("MESSAGE", "x")]),
            Ok(Delivery::NotThere(_))
        ));
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(path.exists(), "a socket that nobody listens on any more");
        assert!(matches!(
            send(&path, &[("MESSAGE", "x")]),
            Ok(Delivery::NotThere(_))
        ));
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_an_error() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("socket");
        let _listener = UnixDatagram::bind(&path).unwrap();
        let long = "x".repeat(64 << 20);
        let error = send(&path, &[("MESSAGE", &long)]).unwrap_err();
        assert!(matches!(error, SystemJournalError::Send { .. }), "{error}");
    }

    #[test]
    fn a_journald_that_does_not_read_is_not_waited_for_forever() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("socket");
        let _listener = UnixDatagram::bind(&path).unwrap();
        let mut sent = 0;
        let error = loop {
            match send(&path, &[("MESSAGE", "x")]) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 100_000, "the queue never filled");
        };
        assert!(matches!(error, SystemJournalError::Send { .. }), "{error}");
    }

    #[test]
    fn field_names_that_journald_would_drop_are_refused() {
        for bad in [
            "",
            "_TRUSTED",
            "lower",
            "1ST",
            "A B",
            "A=B",
            &"A".repeat(65),
        ] {
            assert!(encode(&[(bad, "x")]).is_err(), "{bad:?}");
        }
    }
}
