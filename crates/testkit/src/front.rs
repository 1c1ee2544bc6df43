//! Something between keyroll and the panel that misbehaves on request: a proxy, a firewall, a page of somebody else's.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// More than any request of a test.
const HEAD: usize = 16 * 1024;
/// Between two bytes of an answer that comes in drops.
const DROP: Duration = Duration::from_millis(100);
/// No test waits longer for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Passes it on, and the answer back.
    Passes,
    /// The same, after this time.
    Slow(Duration),
    /// Takes it, and says nothing.
    Hangs,
    /// Answers 200 one byte at a time, for ever.
    Drips,
    /// Answers 200 and a page for people.
    Page,
    /// Answers 200 and half of the JSON that was announced.
    Half,
    /// Sends whoever brings a credential elsewhere, with 307: method and body shall come along. Passes the others.
    Redirects(String),
}

/// A listener before a panel on this machine. Ends with the value.
#[derive(Debug)]
pub struct Front {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<Manner>,
    requests: AtomicUsize,
    over: AtomicBool,
}

impl Front {
    /// Before what listens at this port of the machine; at first it passes everything.
    pub fn before(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let own = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Passes),
            requests: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let held = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if held.over.load(Ordering::SeqCst) {
                    return;
                }
                let held = Arc::clone(&held);
                // A client that leaves in the middle is no matter.
                thread::spawn(move || {
                    let _ = held.serve(client, port);
                });
            }
        });
        Ok(Self { port: own, shared })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests have come so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// From the next request on.
    pub fn becomes(&self, manner: Manner) {
        let held = self.shared.manner.lock();
        *held.unwrap_or_else(PoisonError::into_inner) = manner;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn manner(&self) -> Manner {
        let held = self.manner.lock();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, mut client: TcpStream, port: u16) -> io::Result<()> {
        let request = request(&mut client)?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        let text = String::from_utf8_lossy(&request).into_owned();
        let answer = match self.manner() {
            Manner::Passes => return pass(&request, client, port),
            Manner::Slow(time) => {
                thread::sleep(time);
                return pass(&request, client, port);
            }
            Manner::Hangs => {
                client.set_read_timeout(Some(PATIENCE))?;
                // Until the client gives up.
                return client.read(&mut [0]).map(drop);
            }
            Manner::Drips => {
                client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
                loop {
                    client.write_all(b" ")?;
                    thread::sleep(DROP);
                }
            }
            Manner::Page => "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 45\r\nConnection: close\r\n\r\n<html><body>We will be back soon</body></html"
                .to_owned(),
            Manner::Half => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400\r\nConnection: close\r\n\r\n{\"accessToken\": \"ey"
                .to_owned(),
            Manner::Redirects(_)
                if !text.starts_with("POST") && !text.to_lowercase().contains("authorization:") =>
            {
                return pass(&request, client, port);
            }
            Manner::Redirects(to) => {
                let path = text.split(' ').nth(1).unwrap_or_default();
                format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
        };
        client.write_all(answer.as_bytes())
    }
}

/// The head, and as much of a body as it announces.
fn request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut part = [0; 4096];
    loop {
        let read = client.read(&mut part)?;
        bytes.extend_from_slice(&part[..read]);
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0_usize) {
                return Ok(bytes);
            }
        }
        if read == 0 || bytes.len() > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn pass(request: &[u8], mut client: TcpStream, port: u16) -> io::Result<()> {
    let mut panel = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    panel.write_all(request)?;
    let mut back = panel.try_clone()?;
    let mut to = client.try_clone()?;
    let answers = thread::spawn(move || io::copy(&mut back, &mut to));
    // The client closes when it has the answer.
    io::copy(&mut client, &mut panel)?;
    panel.shutdown(Shutdown::Both)?;
    let _ = answers.join();
    Ok(())
}
