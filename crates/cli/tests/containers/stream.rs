//! Payment events come in at 50 a second while the secret that signs them is rotated, in grace, and finalized.
//!
//! Each sender does as the providers do: it signs an event once for each try, and tries again where the connection fails or the answer
//! is a 5xx. Beside them somebody forges events all the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Bench, DONE, LIMIT};
use crate::webhooks::{Endpoint, Sender, Shop};
use keyroll_testkit::{StackOptions, containers_wanted, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// 50 a second.
const EVERY: Duration = Duration::from_millis(20);
/// How long a sender goes on trying.
const PATIENCE: Duration = Duration::from_secs(90);
/// Every so many events somebody forges one.
const FORGED: u64 = 10;

/// What became of all events.
#[derive(Debug, Default)]
struct Fates {
    sent: AtomicU64,
    taken: AtomicU64,
    tried_again: AtomicU64,
    forged: AtomicU64,
    /// Events on their way that are signed with the first secret.
    first_open: AtomicU64,
    /// Statuses that no genuine event should get, and that no forged one should.
    odd: Mutex<BTreeMap<String, u32>>,
}

impl Fates {
    fn odd(&self, what: String) {
        *self.odd.lock().unwrap().entry(what).or_default() += 1;
    }
}

struct Stream {
    sender: Sender,
    /// The secret that is rotated away.
    first: String,
    fates: Fates,
    /// Secrets that the provider signs with now, in turn, and those that are nobody's.
    signs: Mutex<(Vec<String>, Vec<String>)>,
    over: AtomicBool,
}

impl Stream {
    fn signs_with(&self, genuine: &[&str], forged: &[&str]) {
        let own = |all: &[&str]| all.iter().map(|&s| s.to_owned()).collect();
        *self.signs.lock().unwrap() = (own(genuine), own(forged));
    }

    async fn flow(self: Arc<Self>) {
        let mut events = JoinSet::new();
        let mut tick = tokio::time::interval(EVERY);
        while !self.over.load(Ordering::SeqCst) {
            tick.tick().await;
            let n = self.fates.sent.fetch_add(1, Ordering::SeqCst);
            events.spawn(Self::event(Arc::clone(&self), n));
            if n.is_multiple_of(FORGED) {
                events.spawn(Self::forgery(Arc::clone(&self), n));
            }
        }
        while events.join_next().await.is_some() {}
    }

    async fn event(self: Arc<Self>, n: u64) {
        // An event is signed with what signed when it happened, however late it gets through.
        let secret = {
            let signs = self.signs.lock().unwrap();
            let all = &signs.0;
            let secret = all[usize::try_from(n).unwrap() % all.len()].clone();
            let first = u64::from(secret == self.first);
            self.fates.first_open.fetch_add(first, Ordering::SeqCst);
            secret
        };
        self.arrives(n, &secret).await;
        let first = u64::from(secret == self.first);
        self.fates.first_open.fetch_sub(first, Ordering::SeqCst);
    }

    async fn arrives(&self, n: u64, secret: &str) {
        let until = Instant::now() + PATIENCE;
        let id = format!("genuine-{n}");
        let mut pause = Duration::from_millis(100);
        loop {
            match self.sender.send(Endpoint::Paystack, secret, &id).await {
                Ok(200) => {
                    self.fates.taken.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(500..600) | Err(_) if Instant::now() < until => {
                    self.fates.tried_again.fetch_add(1, Ordering::SeqCst);
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                other => return self.fates.odd(format!("genuine: {other:?}")),
            }
        }
    }

    async fn forgery(self: Arc<Self>, n: u64) {
        let secrets = self.signs.lock().unwrap().1.clone();
        for (i, secret) in secrets.iter().enumerate() {
            self.fates.forged.fetch_add(1, Ordering::SeqCst);
            let id = format!("forged-{n}-{i}");
            match self.sender.send(Endpoint::Paystack, secret, &id).await {
                Ok(401 | 500..600) | Err(_) => {}
                other => self.fates.odd(format!("forged: {other:?}")),
            }
        }
    }

    /// Waits until this many more events have come through.
    async fn more(&self, events: u64) {
        let wanted = self.fates.taken.load(Ordering::SeqCst) + events;
        let there = async || (self.fates.taken.load(Ordering::SeqCst) >= wanted).then_some(());
        eventually("events come through", LIMIT, there)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_or_taken_twice_and_none_forged_is_taken_over_a_rotation_its_window_and_its_end()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let [old, new, nobody] = [1, 2, 3].map(Shop::key);
    shop.has("payments.paystack.secretKey", &old).await;

    let stream = Arc::new(Stream {
        sender: shop.sender(),
        first: old.clone(),
        fates: Fates::default(),
        signs: Mutex::default(),
        over: AtomicBool::new(false),
    });
    stream.signs_with(&[&old], &[&nobody, &new]);
    let flow = tokio::spawn(Arc::clone(&stream).flow());
    stream.more(100).await;

    // With a key of the containers, so that they are made anew in the middle of it. The new secret is in force at some instant of it.
    stream.signs_with(&[&old], &[&nobody]);
    let run = shop
        .rotate(&[("PAYSTACK_SECRET", &new)], &["JWT_SECRET"])
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    stream.more(50).await;
    // The provider cuts over, machine by machine.
    stream.signs_with(&[&old, &new], &[&nobody]);
    stream.more(100).await;
    stream.signs_with(&[&new], &[&nobody]);
    let arrived = async || {
        let open = stream.fates.first_open.load(Ordering::SeqCst);
        (open == 0).then_some(())
    };
    let what = "nothing that is signed with the old secret is on its way";
    eventually(what, LIMIT, arrived).await.unwrap();
    stream.more(50).await;

    let run = bench
        .run(&shop.with(&["finalize", "PAYSTACK_SECRET", "--yes"], &[]))
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    stream.signs_with(&[&new], &[&nobody, &old]);
    stream.more(100).await;
    stream.over.store(true, Ordering::SeqCst);
    flow.await.unwrap();

    let fates = &stream.fates;
    let sent = fates.sent.load(Ordering::SeqCst);
    println!("{fates:?}");
    assert!(fates.odd.lock().unwrap().is_empty(), "{fates:?}");
    assert_eq!(fates.taken.load(Ordering::SeqCst), sent);
    assert!(fates.forged.load(Ordering::SeqCst) > 50, "{fates:?}");
    let count =
        |what: &str| format!(r#"SELECT count(*) FROM "WebhookEvent" WHERE "id" LIKE '%{what}-%'"#);
    assert_eq!(
        bench.stack.sql_value(&count("genuine")).await.unwrap(),
        sent.to_string()
    );
    assert_eq!(bench.stack.sql_value(&count("forged")).await.unwrap(), "0");
}
