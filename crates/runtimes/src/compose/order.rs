//! Starting recreated containers so that each gets the address that its service had.
//!
//! A stopped container gives its address back, and one that starts gets the lowest that is free. Compose starts what it has
//! recreated side by side, so of two services each may get the other's address; half the time they do. Nothing that asks the
//! engine for a name minds. But a proxy that looks a name up once, at its own start, as nginx does with a plain `proxy_pass`,
//! then asks the wrong service until somebody reloads it. So compose only makes the containers, and they are started here, the
//! one with the lowest address first.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::cli::{Cli, Compose};
use super::engine::Engine;
use super::error::ActError;
use super::recreate::Recreate;
use super::resolved::{MountedFrom, Resolved, Service};

impl Cli {
    /// The services in the order in which they are to be started; `None` where compose starts them: there is only one, nobody
    /// knows where they were, they wait for one another, or compose does more than to start them.
    pub(super) fn start_order(
        &self,
        wanted: &Recreate,
        resolved: &Resolved,
    ) -> Option<Vec<String>> {
        // Version 1 connects a container to its networks when it starts it.
        let v2 = matches!(self.compose(), Compose::V2(_));
        let simple = |s: &String| {
            let service = &resolved.services[s];
            let waits = service
                .depends_on
                .keys()
                .any(|d| wanted.services.contains(d));
            !waits && !needs_compose(service)
        };
        if !v2 || wanted.services.len() < 2 || !wanted.services.iter().all(simple) {
            return None;
        }
        order(&wanted.services, &wanted.addresses)
    }

    /// Starts what compose has made for these services.
    pub(super) async fn start_one_by_one(
        &self,
        engine: &Engine,
        order: &[String],
    ) -> Result<(), ActError> {
        let unsure = |e: &dyn std::error::Error| {
            ActError::Indeterminate(format!("compose has made the containers anew: {e}"))
        };
        let made = engine.containers(&self.project().name).await;
        let made = made.map_err(|e| unsure(&e))?;
        for service in order {
            for container in made.iter().filter(|c| c.service == *service && !c.one_off) {
                engine.start(&container.id).await.map_err(|e| unsure(&e))?;
            }
        }
        Ok(())
    }
}

/// Whether compose does something of its own when it starts the service's containers: it copies secrets and configs that are
/// no files into them, and runs hooks.
fn needs_compose(service: &Service) -> bool {
    let copied =
        |from: &MountedFrom| matches!(from, MountedFrom::Environment(_) | MountedFrom::Content(_));
    service.mounted.iter().any(|m| copied(&m.source))
        || service
            .texts
            .iter()
            .any(|(at, _)| at.starts_with("post_start"))
}

fn order(services: &[String], addresses: &BTreeMap<String, Vec<IpAddr>>) -> Option<Vec<String>> {
    let mut known: Vec<(&Vec<IpAddr>, &String)> = services
        .iter()
        .map(|s| Some((addresses.get(s).filter(|all| !all.is_empty())?, s)))
        .collect::<Option<_>>()?;
    known.sort();
    Some(known.into_iter().map(|(_, s)| s.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(all: &[(&str, &str)]) -> BTreeMap<String, Vec<IpAddr>> {
        let parse = |ip: &str| {
            ip.split_whitespace()
                .map(|ip| ip.parse().unwrap())
                .collect()
        };
        all.iter()
            .map(|(s, ip)| ((*s).to_owned(), parse(ip)))
            .collect()
    }

    #[test]
    fn the_lowest_address_is_first_and_numbers_are_no_texts() {
        let services = ["api", "web", "worker"].map(str::to_owned);
        let known = at(&[
            ("api", "172.18.0.10"),
            ("web", "172.18.0.9"),
            ("worker", "172.18.0.11"),
        ]);
        assert_eq!(order(&services, &known).unwrap(), ["web", "api", "worker"]);
    }

    #[test]
    fn without_the_address_of_one_there_is_no_order() {
        let services = ["api", "worker"].map(str::to_owned);
        assert!(order(&services, &at(&[("api", "10.0.0.2")])).is_none());
        assert!(order(&services, &at(&[("api", "10.0.0.2"), ("worker", "")])).is_none());
    }

    #[test]
    fn secrets_that_compose_copies_at_the_start_leave_the_start_to_it() {
        let sample = super::super::resolved::tests::sample();
        assert!(needs_compose(&sample.services["api"]));
        assert!(!needs_compose(&sample.services["db"]));
    }
}
