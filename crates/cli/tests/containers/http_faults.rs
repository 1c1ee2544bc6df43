//! What stands before the application is slow, silent, leads elsewhere or answers with something else.

use std::time::Duration;

use crate::common::{Bench, DONE, GOING_BACK, ROTATE, at, went_back};
use keyroll_testkit::{Front, Manner, StackOptions, containers_wanted};

impl Bench {
    fn front(&self) -> Front {
        let url = self.stack.base_url();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        Front::before(port).unwrap()
    }
}

/// Rotates everything, through the front, and waits this many seconds for an answer.
fn through<'a>(url: &'a str, limit: &'a str) -> Vec<&'a str> {
    [&ROTATE[..], &["--base-url", url, "--set", limit]].concat()
}

#[tokio::test]
async fn an_application_that_is_silent_leads_elsewhere_or_answers_garbage_is_refused_and_a_slow_one_is_rotated()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let (front, elsewhere) = (bench.front(), bench.front());
    let url = front.url();
    let short = through(&url, "limits.request_seconds=2");
    for (manner, says) in [
        (Manner::Hangs, "no whole answer within 2s"),
        (Manner::Drips, "no whole answer within 2s"),
        (Manner::Page, "the answer is no JSON"),
        (Manner::Half, "the connection broke"),
        (
            Manner::Redirects(elsewhere.url()),
            "a redirect to /api/auth/login",
        ),
    ] {
        front.becomes(manner);
        bench.refuses_since(&before, &short, "panel", &[says]).await;
    }
    assert_eq!(elsewhere.requests(), 0, "a credential was taken elsewhere");

    front.becomes(Manner::Slow(Duration::from_millis(200)));
    let run = bench.run(&through(&url, "limits.request_seconds=10")).await;
    assert_eq!(run.code, DONE, "{run:?}");
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn an_application_that_is_silent_leads_elsewhere_or_answers_garbage_after_the_recreation_turns_the_rotation_back()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let (front, elsewhere) = (bench.front(), bench.front());
    let url = front.url();
    for (manner, says) in [
        (Manner::Hangs, "no whole answer within 3s"),
        (Manner::Page, "the answer is no JSON"),
        (Manner::Redirects(elsewhere.url()), "a redirect to "),
    ] {
        let moments = vec![
            at("recreate: done", || front.becomes(manner.clone())),
            at(GOING_BACK, || front.becomes(Manner::Passes)),
        ];
        let command = through(&url, "limits.request_seconds=3");
        let run = bench.interfere(&command, moments).await;
        went_back(&run);
        assert!(run.stderr.contains(says), "{says:?} is not in {run:?}");
        bench.old_set_is_back(&before).await;
        bench.trail_says("compensated", &[says]).await;
    }
    assert_eq!(elsewhere.requests(), 0, "a credential was taken elsewhere");
}
