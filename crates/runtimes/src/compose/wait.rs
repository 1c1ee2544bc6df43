//! Stopping and starting containers, and waiting until they are well, told by the engine's events.
//!
//! An event is only the reason to look: what counts is the container as the engine describes it then. So an event that
//! comes twice does no harm, and one that happened before the waiting began is not missed, since events are asked for from
//! an earlier moment on (the engine keeps its last 256).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptions, StartContainerOptions, StopContainerOptions};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::container::{Container, Health, State};
use super::engine::Engine;
use super::error::EngineError;

/// In case an event was lost: look again without one.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Lines of a sick container's log that are shown.
const LINES: usize = 12;

/// How long, and for what.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// When it is given up.
    pub limit: Duration,
    /// How long a container without a health check has to run until it counts as well. One second by default.
    pub settle: Duration,
    /// Services whose containers must end with 0 ([`Resolved::jobs`](super::Resolved::jobs)); others must not end.
    pub jobs: BTreeSet<String>,
    /// Ends since this moment count, such as the beginning of the recreation. The call's own by default.
    pub since: Option<Timestamp>,
}

impl Waiting {
    /// Waits this long at most.
    pub fn at_most(limit: Duration) -> Self {
        Self {
            limit,
            settle: Duration::from_secs(1),
            jobs: BTreeSet::new(),
            since: None,
        }
    }
}

/// A container that is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHealthy {
    /// The service.
    pub service: String,
    /// The container's name.
    pub container: String,
    /// What is wrong.
    pub why: String,
    /// The end of its log, redacted.
    pub log: Vec<String>,
}

/// Why the waiting ended otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// These are not well.
    #[error("not well: {}; see `docker logs {}`", told(.0), .0.first().map_or("", |n| n.container.as_str()))]
    NotHealthy(Vec<NotHealthy>),
    /// The engine did not answer, so nothing is known.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn told(all: &[NotHealthy]) -> String {
    let mut text = String::new();
    for sick in all {
        let gap = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{gap}{}: {}", sick.service, sick.why);
        if let Some(last) = sick.log.last() {
            let _ = write!(text, " (its last words: {last})");
        }
    }
    text
}

/// What is to be done about a container.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// Look again at an event, or after this time.
    Wait(Option<Duration>),
    Sick(String),
}

impl Engine {
    /// Stops a container as `docker stop` does: its own signal, then SIGKILL after its own time to stop, at most `limit`.
    /// One that does not run is left as it is. An error says nothing about whether it runs.
    pub async fn stop(&self, id: &str, limit: Duration) -> Result<(), EngineError> {
        let patient = self.clone().with_limit(limit);
        let call = self.docker.stop_container(id, None::<StopContainerOptions>);
        patient.ask(&format!("stop container {id}"), call).await
    }

    /// Starts a container again, with the environment and everything else that it was made with. One that runs is left as
    /// it is. An error says nothing about whether it runs.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        let call = self
            .docker
            .start_container(id, None::<StartContainerOptions>);
        self.ask(&format!("start container {id}"), call).await
    }

    /// Waits until all of these containers (ids) are well: healthy if they have a health check, else running for a moment;
    /// jobs ended with 0. A container that becomes unhealthy, or ends, is reported at once with the end of its log.
    pub async fn wait_healthy(&self, ids: &[String], waiting: &Waiting) -> Result<(), WaitError> {
        if ids.is_empty() {
            return Ok(());
        }
        let end = Instant::now() + waiting.limit;
        let since = waiting.since.unwrap_or_else(Timestamp::now);
        let mut events = Box::pin(self.docker.events(Some(watched(ids, since))));
        let mut pending: BTreeSet<String> = ids.iter().cloned().collect();
        let mut look: BTreeSet<String> = pending.clone();
        let mut ended: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let mut next = Instant::now() + LOOK_AGAIN;
            let mut sick = Vec::new();
            for id in std::mem::take(&mut look) {
                let Some((verdict, name)) = self.judge(&id, waiting, ended.get(&id)).await? else {
                    sick.push(NotHealthy {
                        service: id.clone(),
                        container: id,
                        why: "it was removed".into(),
                        log: vec![],
                    });
                    continue;
                };
                match verdict {
                    Verdict::Well => {
                        pending.remove(&id);
                    }
                    Verdict::Wait(None) => {}
                    Verdict::Wait(Some(time)) => {
                        next = next.min(Instant::now() + time);
                        // Looked at again together with whatever the next event names.
                        look.insert(id);
                    }
                    Verdict::Sick(why) => sick.push(self.not_healthy(&name, why, since).await),
                }
            }
            if !sick.is_empty() {
                return Err(WaitError::NotHealthy(sick));
            }
            if pending.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self.too_late(&pending, waiting, since).await?);
            }
            match timeout_at(next.min(end), events.next()).await {
                Ok(Some(Ok(event))) => note(&event, &pending, &mut look, &mut ended),
                Ok(Some(Err(e))) => return Err(self.error("watch events", &e).into()),
                Ok(None) => {
                    return Err(WaitError::Engine(EngineError::Unknown {
                        doing: "watch events".into(),
                        reason: "the engine closed the stream of events".into(),
                    }));
                }
                Err(_) => look = pending.clone(),
            }
        }
    }

    /// `None` when the container is gone.
    async fn judge(
        &self,
        id: &str,
        waiting: &Waiting,
        ended: Option<&String>,
    ) -> Result<Option<(Verdict, Container)>, EngineError> {
        let container = match self.container(id).await {
            Ok(container) => container,
            Err(EngineError::Gone { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let verdict = verdict(&container, waiting, ended, Timestamp::now());
        Ok(Some((verdict, container)))
    }

    async fn too_late(
        &self,
        pending: &BTreeSet<String>,
        waiting: &Waiting,
        since: Timestamp,
    ) -> Result<WaitError, EngineError> {
        let mut sick = Vec::new();
        for id in pending {
            let container = self.container(id).await?;
            let why = match (container.state, container.health) {
                (State::Running, Health::Starting) => "its health is still not known".to_owned(),
                (state, _) => format!("it is still {state}"),
            };
            let why = format!("{why} after {:?}", waiting.limit);
            sick.push(self.not_healthy(&container, why, since).await);
        }
        Ok(WaitError::NotHealthy(sick))
    }

    async fn not_healthy(
        &self,
        container: &Container,
        why: String,
        since: Timestamp,
    ) -> NotHealthy {
        let from = container.created_at.unwrap_or(since);
        let log = self.logs_since(&container.id, from, LINES).await;
        NotHealthy {
            service: container.service.clone(),
            container: container.name.clone(),
            why,
            log: log
                .unwrap_or_default()
                .into_iter()
                .map(|l| l.text)
                .collect(),
        }
    }
}

fn watched(ids: &[String], since: Timestamp) -> EventsOptions {
    let events = [
        "health_status",
        "die",
        "start",
        "restart",
        "oom",
        "pause",
        "destroy",
    ];
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("container".to_owned(), ids.to_vec()),
        ("event".to_owned(), events.map(str::to_owned).to_vec()),
    ]);
    EventsOptions {
        since: Some(format!(
            "{}.{:09}",
            since.as_second(),
            since.subsec_nanosecond()
        )),
        filters: Some(filters),
        ..Default::default()
    }
}

/// Takes an event as the reason to look at its container, and remembers an end.
fn note(
    event: &EventMessage,
    pending: &BTreeSet<String>,
    look: &mut BTreeSet<String>,
    ended: &mut BTreeMap<String, String>,
) {
    let Some(actor) = &event.actor else { return };
    let Some(id) = actor.id.as_ref().filter(|id| pending.contains(*id)) else {
        return;
    };
    look.insert(id.clone());
    if event.action.as_deref() == Some("die") {
        let code = actor.attributes.as_ref().and_then(|a| a.get("exitCode"));
        ended.insert(
            id.clone(),
            code.cloned().unwrap_or_else(|| "unknown".into()),
        );
    }
}

fn verdict(
    container: &Container,
    waiting: &Waiting,
    ended: Option<&String>,
    now: Timestamp,
) -> Verdict {
    let job = waiting.jobs.contains(&container.service);
    match (container.state, container.health) {
        _ if job && container.is_done() => Verdict::Well,
        (State::Exited(code), _) => Verdict::Sick(format!("it ended with exit code {code}")),
        (State::Dead | State::Paused, _) => Verdict::Sick(format!("it is {}", container.state)),
        (State::Restarting, _) => Verdict::Sick("it ended, and is being restarted".into()),
        // Running again after an end that an event told: it is in a loop, or about to be.
        (State::Running | State::Created, _) if ended.is_some() => Verdict::Sick(format!(
            "it ended with exit code {} and was started again",
            ended.map_or("unknown", String::as_str)
        )),
        (State::Running, Health::Unhealthy) => Verdict::Sick("its health check fails".into()),
        (State::Running, Health::Healthy) if !job => Verdict::Well,
        (State::Running, Health::None) if !job => {
            let ran = container
                .started_at
                .and_then(|t| Duration::try_from(now.duration_since(t)).ok())
                .unwrap_or_default();
            match waiting.settle.checked_sub(ran) {
                None | Some(Duration::ZERO) => Verdict::Well,
                Some(rest) => Verdict::Wait(Some(rest)),
            }
        }
        (State::Running | State::Created, _) => Verdict::Wait(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::Restart;
    use super::super::container::tests::sample;
    use super::*;

    fn judge(change: impl FnOnce(&mut Container), ended: Option<&str>) -> Verdict {
        let mut c = sample("api");
        change(&mut c);
        let mut waiting = Waiting::at_most(Duration::from_secs(9));
        waiting.jobs = BTreeSet::from(["job".to_owned()]);
        let now = "2026-11-24T00:06:48.25Z".parse().unwrap(); // a quarter of a second after its start
        verdict(&c, &waiting, ended.map(str::to_owned).as_ref(), now)
    }

    #[test]
    fn with_a_health_check_only_healthy_is_well() {
        let health = |h| judge(|c| c.health = h, None);
        assert_eq!(health(Health::Healthy), Verdict::Well);
        assert_eq!(health(Health::Starting), Verdict::Wait(None));
        assert!(matches!(health(Health::Unhealthy), Verdict::Sick(_)));
    }

    #[test]
    fn without_one_it_has_to_run_for_a_moment() {
        assert_eq!(
            judge(|_| (), None),
            Verdict::Wait(Some(Duration::from_millis(750)))
        );
        let earlier = |c: &mut Container| c.started_at = "2026-11-24T00:06:40Z".parse().ok();
        assert_eq!(judge(earlier, None), Verdict::Well);
    }

    #[test]
    fn an_end_is_sickness_even_when_it_runs_again() {
        assert!(
            matches!(judge(|c| c.health = Health::Healthy, Some("1")), Verdict::Sick(w) if w.contains("code 1"))
        );
        assert!(
            matches!(
                judge(|c| c.state = State::Exited(0), None),
                Verdict::Sick(_)
            ),
            "it should go on"
        );
        let once = |c: &mut Container| (c.restart, c.state) = (Restart::No, State::Exited(0));
        assert!(
            matches!(judge(once, None), Verdict::Sick(_)),
            "it is no job: it ran before, and must run now"
        );
        assert!(matches!(
            judge(|c| c.state = State::Restarting, None),
            Verdict::Sick(_)
        ));
    }

    #[test]
    fn a_job_has_to_end_with_0() {
        let job = |state| {
            judge(
                |c| (c.service, c.restart, c.state) = ("job".into(), Restart::No, state),
                None,
            )
        };
        assert_eq!(job(State::Running), Verdict::Wait(None));
        assert_eq!(job(State::Exited(0)), Verdict::Well);
        assert!(matches!(job(State::Exited(2)), Verdict::Sick(_)));
    }
}
