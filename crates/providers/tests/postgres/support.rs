//! A server of the test's own, and ways to it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use keyroll_providers::postgres::{
    Address, ApplicationName, Endpoint, Login, Session, StoredPassword, Verifier, VerifierKind,
    try_login,
};
use keyroll_secret::Secret;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// The superuser's password, and the application role's at first.
pub(crate) const ROOT: &str = "superuser-password-1";
pub(crate) const OLD: &str = "old-panel-password-1";
/// From here the server checks passwords; from 127.0.0.1 it trusts everybody, as the official image does.
const CHECKED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const HBA: &str = "local all all trust
host closed all 127.0.0.2/32 reject
host all panel_md5 127.0.0.2/32 md5
host all all 127.0.0.2/32 scram-sha-256
host all all 127.0.0.1/32 trust
";

/// A running server with a database `panel`, a role `panel` and a superuser `postgres`.
pub(crate) struct Server {
    child: Child,
    directory: TempDir,
    port: u16,
    relay: Relay,
}

impl Server {
    /// Starts one, or says that there are no binaries.
    pub(crate) async fn start() -> Option<Self> {
        Self::with_settings(&[]).await
    }

    pub(crate) async fn with_settings(settings: &[&str]) -> Option<Self> {
        let Some(binaries) = binaries() else {
            assert!(
                std::env::var("KEYROLL_CONTAINER_TESTS").as_deref() != Ok("1"),
                "no PostgreSQL server in /usr/lib/postgresql; install postgresql-15"
            );
            println!("skipped: no PostgreSQL server in /usr/lib/postgresql");
            return None;
        };
        let directory = tempfile::Builder::new()
            .prefix("keyroll-pg")
            .tempdir()
            .unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        if let Some((uid, gid)) = unprivileged() {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).unwrap();
            std::os::unix::fs::chown(&data, Some(uid), Some(gid)).unwrap();
        }
        let made = command(&binaries.join("initdb"))
            .args(["--no-sync", "--username=postgres", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        let (child, port) = run(&binaries, &directory, settings);
        let mut server = Self {
            child,
            directory,
            port,
            relay: Relay::start(port, CHECKED).await,
        };
        while !server.is_up().await {
            // Another test took the port.
            (server.child, server.port) = run(&binaries, &server.directory, settings);
            server.relay = Relay::start(server.port, CHECKED).await;
        }
        server
            .sql(&format!(
                "ALTER ROLE postgres PASSWORD '{ROOT}'; CREATE ROLE panel LOGIN PASSWORD '{OLD}'"
            ))
            .await;
        server.sql("CREATE DATABASE panel OWNER panel").await;
        Some(server)
    }

    /// Waits until the server answers; false if it ended because its port is in use.
    async fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if self.child.try_wait().unwrap().is_some() {
                assert!(self.log().contains("in use"), "{}", self.log());
                return false;
            }
            let trusted = self.trusted("postgres", "postgres");
            if try_login(&trusted, &Secret::new("x"), LIMIT).await == Login::Accepted {
                return true;
            }
            assert!(Instant::now() < deadline, "not up: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A path that trusts everybody.
    pub(crate) fn trusted(&self, database: &str, role: &str) -> Endpoint {
        endpoint(self.port, database, role)
    }

    /// A path that checks passwords.
    pub(crate) fn checked(&self, database: &str, role: &str) -> Endpoint {
        endpoint(self.relay.port, database, role)
    }

    /// Where it trusts everybody.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The relay on the path that checks passwords.
    pub(crate) fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Runs statements as the superuser, outside the code under test.
    pub(crate) async fn sql(&self, statements: &str) {
        let client = self.client("postgres", "postgres").await;
        client.batch_execute(statements).await.unwrap();
    }

    /// A plain connection over the trusted path.
    pub(crate) async fn client(&self, database: &str, role: &str) -> tokio_postgres::Client {
        let text = format!(
            "host=127.0.0.1 port={} dbname={database} user={role} application_name=panel-api",
            self.port
        );
        let (client, connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// A superuser's session of the code under test, on `database`.
    pub(crate) async fn session(&self, database: &str) -> Session {
        let endpoint = self.checked(database, "postgres");
        Session::open(&endpoint, &Secret::new(ROOT), &name("r-1"), LIMIT)
            .await
            .unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}

fn endpoint(port: u16, database: &str, role: &str) -> Endpoint {
    Endpoint {
        address: Address::ip(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        database: database.into(),
        role: role.into(),
    }
}

pub(crate) fn name(rotation: &str) -> ApplicationName {
    ApplicationName::of_rotation(rotation).unwrap()
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text)
}

pub(crate) fn verifier(kind: VerifierKind, role: &str, password: &str) -> StoredPassword {
    StoredPassword::Verifier(Verifier::make(kind, role, &secret(password)).unwrap())
}

pub(crate) fn refused() -> Login {
    Login::Refused {
        code: "28P01".into(),
    }
}

/// The newest server that Debian's packages installed.
fn binaries() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    found.sort();
    Some(found.pop()?.1)
}

/// The server refuses to run as root: the `postgres` user's ids then.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("a user postgres comes with the server's package");
    let mut fields = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}

fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = unprivileged() {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        command.arg("--clear-groups");
    }
    // A server whose test was killed goes too.
    command.arg("--pdeathsig=QUIT").arg(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin");
    command.current_dir("/");
    command
}

fn run(binaries: &Path, directory: &TempDir, settings: &[&str]) -> (Child, u16) {
    let log = File::create(directory.path().join("log")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = command(&binaries.join("postgres"));
    server.arg("-D").arg(directory.path().join("data"));
    server.args(["-c", &format!("port={port}"), "-c", "fsync=off"]);
    server.args(["-c", "listen_addresses=127.0.0.1"]);
    server.arg("-c");
    server.arg(format!(
        "unix_socket_directories={}",
        directory.path().display()
    ));
    for setting in settings {
        server.args(["-c", setting]);
    }
    drop(listener);
    let child = server
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("setpriv (util-linux) starts the server");
    (child, port)
}

/// Passes bytes on to the server from another source address, and can cut the line.
pub(crate) struct Relay {
    pub(crate) port: u16,
    mode: Arc<AtomicU8>,
}

/// When the relay cuts a connection.
#[derive(Clone, Copy)]
pub(crate) enum Cut {
    Never = 0,
    /// The statement does not reach the server.
    BeforeAlter = 1,
    /// COMMIT reaches the server, its answer does not come back.
    AfterCommit = 2,
    /// From the change on nothing moves any more, and both lines stay open: a suspended keyroll, as the server sees it.
    FreezeAtAlter = 3,
}

impl Relay {
    pub(crate) async fn start(to: u16, from: Ipv4Addr) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(0));
        let shared = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, to, from, Arc::clone(&shared)));
            }
        });
        Self { port, mode }
    }

    pub(crate) fn cut(&self, when: Cut) {
        self.mode.store(when as u8, Ordering::SeqCst);
    }
}

async fn relay(mut client: TcpStream, to: u16, from: Ipv4Addr, mode: Arc<AtomicU8>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
    let Ok(mut server) = socket.connect(target).await else {
        return;
    };
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(1..) = read else { return };
                let bytes = &up[..read.unwrap()];
                let holds = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
                let mode = mode.load(Ordering::SeqCst);
                if mode == Cut::BeforeAlter as u8 && holds(b"ALTER ROLE") {
                    return;
                }
                if mode == Cut::FreezeAtAlter as u8 && holds(b"ALTER ROLE") {
                    std::future::pending::<()>().await;
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
                if mode == Cut::AfterCommit as u8 && holds(b"COMMIT\0") {
                    // (BEGIN says READ COMMITTED.) The server has it; wait for its answer, and keep that.
                    let _ = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
