//! Whether a PostgreSQL server is at the other end of a stream, before anybody logs in.
//!
//! That a connection was taken says little where something stands in between: the engine's proxy of a published port, and a
//! program that relays, take it first and look for the server then.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::endpoint::Stream;

/// `SSLRequest` (protocol 3.0, message formats): the length, and a version number that none has.
const ASK_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Asks whether the server speaks TLS, which every one answers with a letter and logs nothing about. Nobody
/// can log in over the stream any more.
pub async fn greet(stream: &mut (impl Stream + ?Sized)) -> io::Result<()> {
    stream.write_all(&ASK_FOR_TLS).await?;
    stream.flush().await?;
    let mut letter = [0];
    match stream.read(&mut letter).await? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed without an answer",
        )),
        // Yes, no, or an error message: all of them are a server's.
        _ if matches!(&letter, b"S" | b"N" | b"E") => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what answers is not PostgreSQL",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(with: &[u8]) -> Result<(), io::ErrorKind> {
        let (mut near, mut far) = tokio::io::duplex(64);
        let server = async {
            let mut asked = [0; 8];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, ASK_FOR_TLS);
            far.write_all(with).await.unwrap();
            drop(far);
        };
        let (greeted, ()) = tokio::join!(greet(&mut near), server);
        greeted.map_err(|e| e.kind())
    }

    #[tokio::test]
    async fn a_server_is_known_by_its_letter_and_nothing_else_is_taken_for_one() {
        for letter in [b"N", b"S", b"E"] {
            assert_eq!(answered(letter).await, Ok(()));
        }
        assert_eq!(answered(b"").await, Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(
            answered(b"OCI runtime exec failed").await,
            Err(io::ErrorKind::InvalidData)
        );
        assert_eq!(
            answered(b"HTTP/1.1 400").await,
            Err(io::ErrorKind::InvalidData)
        );
    }
}
