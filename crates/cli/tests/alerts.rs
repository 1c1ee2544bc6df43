//! Who hears of what happens while nobody is there: a real mail server and a webhook receiver on loopback.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyroll_sandbox_providers::Providers;
use keyroll_testkit::{Keyroll, eventually};

const DONE: Option<i32> = Some(0);
/// Debian's, whose package the server is.
const PYTHON: &str = "/usr/bin/python3";
const LIMIT: Duration = Duration::from_secs(30);

/// aiosmtpd, which keeps every mail as a file.
struct MailServer(Child);

impl MailServer {
    /// `None` where it is not installed; `cargo xtask test` installs it.
    async fn start(port: u16, mails: &Path) -> Option<Self> {
        let there = Command::new(PYTHON)
            .args(["-c", "import aiosmtpd"])
            .output();
        if !there.is_ok_and(|done| done.status.success()) {
            return None;
        }
        let at = format!("127.0.0.1:{port}");
        let child = Command::new(PYTHON)
            .args([
                "-m",
                "aiosmtpd",
                "-n",
                "-l",
                &at,
                "-c",
                "aiosmtpd.handlers.Mailbox",
            ])
            .arg(mails)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
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
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
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
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::system());
    let from = (now.hour() + 12) % 24;
    let layers = [
        format!("schedule.window={{ from = \"{from:02}:00\", to = \"{from:02}:01\" }}"),
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
