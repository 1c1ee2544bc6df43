//! Containers that a killed compose left half-way through a recreation.
//!
//! Compose makes the new container under a name of its own (`<start of the old one's id>_<name>`), stops and removes the old
//! one, and then gives the new one its name. Killed in between, it leaves both, or the new one under the odd name; and the next
//! compose trips over the names that it makes from these ("Conflict. The container name … is already in use"), as often as it
//! is called. So before compose is asked again, what was made and never started goes where the old one is still there, and
//! a lone new one gets its name. Volumes are left alone: both have the same ones.

use std::collections::{BTreeMap, BTreeSet};

use super::cli::Cli;
use super::container::{Container, State};
use super::engine::Engine;
use super::error::ActError;

/// What is to be done about one leftover.
#[derive(Debug, PartialEq, Eq)]
enum Mend<'a> {
    /// The container's id.
    Remove(&'a str),
    /// The container's id, and the name that it gets.
    Rename(&'a str, &'a str),
}

impl Cli {
    /// Clears up behind a killed compose. True when there was something to clear up.
    pub(super) async fn clear_up(
        &self,
        engine: &Engine,
        services: &[String],
        containers: &[Container],
    ) -> Result<bool, ActError> {
        // The engine may still be removing what compose asked it to; so it is worth another look.
        let unsure = |e: super::error::EngineError| {
            ActError::Indeterminate(format!(
                "what a killed compose left could not be cleared up: {e}"
            ))
        };
        let mends = mends(services, containers);
        for mend in &mends {
            match mend {
                Mend::Remove(id) => engine.remove(id).await.map_err(unsure)?,
                Mend::Rename(id, name) => {
                    engine.rename(id, name).await.map_err(unsure)?;
                }
            }
        }
        Ok(!mends.is_empty())
    }
}

fn mends<'a>(services: &[String], containers: &'a [Container]) -> Vec<Mend<'a>> {
    let wanted: BTreeSet<&String> = services.iter().collect();
    let mut places: BTreeMap<(&str, u32), Vec<&Container>> = BTreeMap::new();
    for container in containers {
        if wanted.contains(&container.service) && !container.one_off {
            let place = (container.service.as_str(), container.number);
            places.entry(place).or_default().push(container);
        }
    }
    let mut mends = vec![];
    for all in places.values() {
        let (odd, named): (Vec<&Container>, Vec<&Container>) =
            all.iter().partition(|c| own_name(&c.name).is_some());
        let never_started = odd.iter().filter(|c| c.state == State::Created);
        match (named.is_empty(), odd.as_slice()) {
            (true, [one]) => {
                mends.extend(own_name(&one.name).map(|name| Mend::Rename(&one.id, name)));
            }
            // Several of them, and none has its name: which one is to stay is not for a guess.
            (true, _) => {}
            (false, _) => mends.extend(never_started.map(|c| Mend::Remove(&c.id))),
        }
    }
    mends
}

/// The name that compose was about to give to a container with an odd one.
fn own_name(name: &str) -> Option<&str> {
    let (mut rest, mut odd) = (name, false);
    // Compose that recreates such a container puts another one in front.
    while let Some((id, after)) = rest.split_once('_')
        && id.len() == 12
        && id.bytes().all(|b| b.is_ascii_hexdigit())
    {
        (rest, odd) = (after, true);
    }
    odd.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::super::container::tests::sample;
    use super::*;

    fn named(name: &str, state: State) -> Container {
        let mut container = sample("api");
        (container.name, container.id, container.state) = (name.into(), name.into(), state);
        container
    }

    const ODD: &str = "a5595faaf0ed_panel-api-1";

    #[test]
    fn the_new_one_that_never_started_goes_while_the_old_one_is_there() {
        let all = [
            named("panel-api-1", State::Running),
            named(ODD, State::Created),
        ];
        assert_eq!(mends(&["api".into()], &all), [Mend::Remove(ODD)]);
        assert_eq!(mends(&["worker".into()], &all), [], "not its service");
    }

    #[test]
    fn a_lone_new_one_gets_its_name_whether_it_runs_or_not() {
        for state in [State::Created, State::Running] {
            let all = [named(ODD, state)];
            let expected = Mend::Rename(ODD, "panel-api-1");
            assert_eq!(mends(&["api".into()], &all), [expected]);
        }
        let twice = [named(
            "b83cbdd3fce2_a5595faaf0ed_panel_api_1",
            State::Created,
        )];
        let expected = Mend::Rename(&twice[0].id, "panel_api_1");
        assert_eq!(mends(&["api".into()], &twice), [expected]);
    }

    #[test]
    fn whole_containers_are_left_alone() {
        let all = [
            named("panel-api-1", State::Running),
            named("abc_panel-api-1", State::Created),
        ];
        assert_eq!(mends(&["api".into()], &all), []);
        let running = [
            named("panel-api-1", State::Exited(0)),
            named(ODD, State::Running),
        ];
        assert_eq!(mends(&["api".into()], &running), [], "which one is meant?");
    }
}
