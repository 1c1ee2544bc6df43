//! Who hears of what happens while nobody is there: a real mail server and a webhook receiver on loopback.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyroll_sandbox_providers::{Certificate, Providers};
use keyroll_testkit::{Keyroll, eventually};

const DONE: Option<i32> = Some(0);
/// Debian's, whose package the server is.
const PYTHON: &str = "/usr/bin/python3";
const LIMIT: Duration = Duration::from_secs(30);

/// aiosmtpd, which keeps every mail as a file.
struct MailServer(Child);

/// The same behind TLS, for whoever logs in with the one name and the password in a file.
const SEALED: &str = r#"
import ssl, sys, threading
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult
how, port, mails, certificate, key, password = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
expected = open(password, "rb").read().strip()
def check(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"keyroll" and data.password == expected)
starttls = how == "starttls"
tls = {"tls_context": context, "require_starttls": True} if starttls else {"ssl_context": context}
Controller(Mailbox(mails), hostname="127.0.0.1", port=int(port), authenticator=check,
           auth_required=True, auth_require_tls=starttls, **tls).start()
threading.Event().wait()
"#;

fn installed() -> bool {
    let there = Command::new(PYTHON)
        .args(["-c", "import aiosmtpd"])
        .output();
    there.is_ok_and(|done| done.status.success())
}

/// A maintenance window twelve hours from here.
fn not_now() -> String {
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::system());
    let from = (now.hour() + 12) % 24;
    format!("schedule.window={{ from = \"{from:02}:00\", to = \"{from:02}:01\" }}")
}

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

impl MailServer {
    /// `None` where it is not installed; `cargo xtask test` installs it.
    async fn start(port: u16, mails: &Path) -> Option<Self> {
        let at = format!("127.0.0.1:{port}");
        let arguments = [
            "-m",
            "aiosmtpd",
            "-n",
            "-l",
            &at,
            "-c",
            "aiosmtpd.handlers.Mailbox",
        ];
        Self::listening(port, Command::new(PYTHON).args(arguments).arg(mails)).await
    }

    async fn listening(port: u16, command: &mut Command) -> Option<Self> {
        if !installed() {
            return None;
        }
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let at = format!("127.0.0.1:{port}");
        let up = async || std::net::TcpStream::connect(&at).ok();
        eventually("the mail server listens", LIMIT, up)
            .await
            .unwrap();
        Some(Self(child))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_waits_for_a_person_is_told_by_mail_and_webhook_and_a_dead_receiver_changes_nothing() {
    let keyroll = Keyroll::new(env!("CARGO_BIN_EXE_keyroll")).unwrap();
    let home = keyroll.home().to_owned();
    let providers = Providers::new();
    let base = providers.serve().await.unwrap();
    let mails = home.join("mails");
    let port = free_port();
    let server = MailServer::start(port, &mails).await;
    let file = |name: &str, text: &str| {
        let path = home.join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        path.display().to_string()
    };
    let hook = file("hook", &format!("{base}/hook/url-canary"));
    let key = file("key", "the key that signs");
    let dead = file("dead", "http://127.0.0.1:9/services/dead-canary");
    // Nothing of the stack is touched: its hour is not now.
    let layers = [
        not_now(),
        format!(
            "alerts.own={{ kind = \"webhook\", url_file = \"{hook}\", hmac_file = \"{key}\" }}"
        ),
        format!("alerts.dead={{ kind = \"slack\", url_file = \"{dead}\" }}"),
        format!(
            "alerts.mail={{ kind = \"mail\", host = \"127.0.0.1\", port = {port}, tls = \"none\", from = \"keyroll@example.com\", to = [\"ops@example.com\"] }}"
        ),
        format!("paths.state={}", home.join("state").display()),
    ];
    let mut words = vec!["rotate", "--due", "--yes"];
    for layer in &layers {
        words.extend(["--set", layer]);
    }
    let run = keyroll.run(words).await.unwrap();
    assert_eq!(run.code, DONE, "{run:?}");
    assert!(
        run.stderr.contains("alert dead was not delivered"),
        "{run:?}"
    );
    assert!(run.stderr.contains("tried 3 times"), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");

    let waits = "PAYSTACK_SECRET is due, and needs a new value from its provider";
    {
        let known = providers.known();
        let [(signature, body)] = known.received.as_slice() else {
            panic!("{:?}", known.received);
        };
        assert!(
            body.contains(waits) && body.contains("\"stack\":\"proxpanel\""),
            "{body}"
        );
        assert!(signature.starts_with("sha256="), "{signature}");
    }
    if server.is_some() {
        let mails: Vec<_> = fs::read_dir(mails.join("new")).unwrap().collect();
        let [Ok(mail)] = mails.as_slice() else {
            panic!("{mails:?}");
        };
        let text = fs::read_to_string(mail.path()).unwrap();
        assert!(text.contains("Subject: keyroll: proxpanel on "), "{text}");
        assert!(text.contains("PAYSTACK_SECRET is due"), "{text}");
    } else {
        assert!(
            run.stderr.contains("alert mail was not delivered"),
            "{run:?}"
        );
    }
}

#[tokio::test]
async fn a_mail_goes_over_tls_of_a_trusted_authority_to_a_server_that_lets_keyroll_in_and_to_no_other()
 {
    if !installed() {
        return;
    }
    let keyroll = Keyroll::new(env!("CARGO_BIN_EXE_keyroll")).unwrap();
    let home = keyroll.home().to_owned();
    let file = |name: &str, text: &str| {
        let path = home.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let [own, stranger] = [false, false].map(|e| Certificate::make(e).unwrap());
    let (certificate, key) = (file("cert", &own.pem), file("key", &own.key));
    let (authority, other) = (
        file("ca", &own.authority),
        file("other", &stranger.authority),
    );
    let password = file("password", "mail-password-canary\n");
    let wrong = file("wrong", "wrong-password-canary\n");
    let both = ["starttls", "implicit"].map(async |how| {
        let mails = home.join(format!("mails-{how}"));
        let port = free_port();
        let mut server = Command::new(PYTHON);
        server.args(["-c", SEALED, how, &port.to_string()]);
        server.arg(&mails).args([&certificate, &key, &password]);
        let _server = MailServer::listening(port, &mut server).await.unwrap();
        let mail = |name: &str, ca: &str, password: &str| {
            format!(
                "alerts.{name}={{ kind = \"mail\", host = \"localhost\", port = {port}, tls = \"{how}\", ca_file = \"{ca}\", user = \"keyroll\", password_file = \"{password}\", from = \"keyroll@example.com\", to = [\"ops@example.com\"] }}"
            )
        };
        let layers = [
            not_now(),
            mail("good", &authority, &password),
            mail("locked", &authority, &wrong),
            mail("untrusted", &other, &password),
            format!("paths.state={}", home.join("state").display()),
        ];
        let mut words = vec!["rotate", "--due", "--yes"];
        for layer in &layers {
            words.extend(["--set", layer]);
        }
        let run = keyroll.run(words).await.unwrap();
        assert_eq!(run.code, DONE, "{how}: {run:?}");
        let undelivered = |name: &str| {
            let says = format!("alert {name} was not delivered");
            run.stderr.contains(&says)
        };
        assert!(!undelivered("good"), "{how}: {run:?}");
        assert!(
            undelivered("locked") && undelivered("untrusted"),
            "{how}: {run:?}"
        );
        assert!(!run.stderr.contains("canary"), "{how}: {run:?}");
        let mails = fs::read_dir(mails.join("new")).unwrap().count();
        assert_eq!(mails, 1, "{how}: one was let in");
    });
    let [starttls, implicit] = both;
    tokio::join!(starttls, implicit);
}
