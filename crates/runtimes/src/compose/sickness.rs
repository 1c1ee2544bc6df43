//! Which services are not well.

use std::fmt;

use super::container::{Container, Health, State};

/// A service that is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sick {
    /// The service.
    pub service: String,
    /// Its container's name.
    pub container: String,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It does not run.
    NotRunning(State),
    /// Its health check fails.
    Unhealthy,
    /// Its health check has not said anything yet.
    Starting,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(state) => state.fmt(f),
            Self::Unhealthy => f.write_str("unhealthy"),
            Self::Starting => f.write_str("health not known yet"),
        }
    }
}

/// What is not well among these containers, one-off ones aside. A job that exited with 0 is well: one that the engine does
/// not start again ([`Container::is_done`]).
pub fn sickness(containers: &[Container]) -> Vec<Sick> {
    containers
        .iter()
        .filter(|c| !c.one_off)
        .filter_map(|c| {
            Some(Sick {
                service: c.service.clone(),
                container: c.name.clone(),
                why: sick(c)?,
            })
        })
        .collect()
}

fn sick(container: &Container) -> Option<Why> {
    match (container.state, container.health) {
        (State::Running, Health::None | Health::Healthy) => None,
        (State::Running, Health::Starting) => Some(Why::Starting),
        (State::Running, Health::Unhealthy) => Some(Why::Unhealthy),
        _ if container.is_done() => None,
        (state, _) => Some(Why::NotRunning(state)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::Restart;
    use super::super::container::tests::sample;
    use super::*;

    fn with(state: State, health: Health, restart: Restart) -> Option<Why> {
        let mut c = sample("s");
        (c.state, c.health, c.restart) = (state, health, restart);
        sickness(&[c]).first().map(|s| s.why)
    }

    #[test]
    fn what_runs_is_well_unless_its_health_check_says_otherwise() {
        use Health::{Healthy, Starting, Unhealthy};
        let running = |health| with(State::Running, health, Restart::Always);
        assert_eq!(running(Health::None), None);
        assert_eq!(running(Healthy), None);
        assert_eq!(running(Starting), Some(Why::Starting));
        assert_eq!(running(Unhealthy), Some(Why::Unhealthy));
    }

    #[test]
    fn a_job_that_exited_with_0_is_well_and_a_service_is_not() {
        let ended = |code, restart| with(State::Exited(code), Health::None, restart);
        assert_eq!(ended(0, Restart::No), None);
        assert_eq!(ended(0, Restart::OnFailure), None);
        assert_eq!(
            ended(0, Restart::Always),
            Some(Why::NotRunning(State::Exited(0)))
        );
        assert_eq!(
            ended(1, Restart::No),
            Some(Why::NotRunning(State::Exited(1)))
        );
    }

    #[test]
    fn restarting_paused_and_never_started_are_sick() {
        for state in [
            State::Restarting,
            State::Paused,
            State::Created,
            State::Dead,
        ] {
            assert_eq!(
                with(state, Health::None, Restart::Always),
                Some(Why::NotRunning(state))
            );
        }
    }

    #[test]
    fn a_one_off_container_is_nobodys_service() {
        let mut c = sample("s");
        (c.state, c.one_off) = (State::Exited(1), true);
        assert!(sickness(&[c]).is_empty());
    }
}
