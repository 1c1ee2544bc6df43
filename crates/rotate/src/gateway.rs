//! The way to the application, where it is broken although the application is not.
//!
//! What users ask is often a proxy. It uses no secret, so a rotation leaves it alone. But a container that was recreated may
//! come back at another address, and a proxy that looks a name up only once (nginx does, with a name that stands in
//! `proxy_pass` as it is) then asks one where nobody is, and answers 502 for as long as it runs. For users that is an outage
//! like any other, so it fails the rotation; but it must not be told as a failure of the application. And a proxy that looks
//! again from time to time needs a moment to do so.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use keyroll_runtimes::compose::{Container, sickness};
use tokio::time::{Instant, sleep};

use crate::about::Fate;
use crate::panel::Finding;
use crate::world::World;

/// For a proxy to look again, once the containers are well.
const MOMENT: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(250);

impl World {
    /// The health path answers, now.
    pub(crate) async fn answers(&self) -> Result<(), Finding> {
        match self.panel()?.health().await? {
            200..300 => Ok(()),
            status => Err(self.not_reached(status).await),
        }
    }

    /// The health path answers, after a moment at most if what it answers may pass by itself. Nothing is asked where the profile
    /// has no application, or one that was not well before the rotation.
    pub(crate) async fn becomes_reachable(&self) -> Result<(), Finding> {
        let Some(panel) = self.panel.as_ref().filter(|_| !self.about.panel_sick) else {
            return Ok(());
        };
        let end = Instant::now() + MOMENT;
        loop {
            match panel.health().await? {
                200..300 => return Ok(()),
                status if passes(status) && Instant::now() < end && self.well().await => {
                    sleep(AGAIN).await;
                }
                status => return Err(self.not_reached(status).await),
            }
        }
    }

    /// The recreated containers, if each of them is well by itself.
    async fn consumers(&self) -> Option<Vec<Container>> {
        let mut containers = self.containers().await.ok()?;
        let recreated = self.about.services_with(Fate::Recreated);
        containers.retain(|c| recreated.contains(&c.service));
        let well = !containers.is_empty() && sickness(&containers).is_empty();
        well.then_some(containers)
    }

    async fn well(&self) -> bool {
        self.consumers().await.is_some()
    }

    /// What it means that the health path answers with this status.
    async fn not_reached(&self, status: u16) -> Finding {
        let http = self.about.profile.http.as_ref();
        let (path, url) = http.map_or(("", ""), |h| (h.health.as_str(), h.base_url.as_str()));
        let plain = format!("{path} answers {status}");
        let consumers = if gateway(status) {
            self.consumers().await
        } else {
            None
        };
        let Some(containers) = consumers else {
            return Finding::Wrong(plain);
        };
        let names: Vec<&str> = containers.iter().map(|c| c.service.as_str()).collect();
        let moved = self.moved(&containers);
        let because = if moved.is_empty() {
            "no address has changed; the log of what stands before the application (a proxy) tells more".to_owned()
        } else {
            format!(
                "{}: a proxy before it that looks a name up once, at its own start, still asks the old address. Have it look again (`nginx -s reload` in it, or restart it); for the next time give it a resolver (nginx: `resolver 127.0.0.11 valid=1s;` and the name in a variable), or the service a fixed address",
                moved.join(", ")
            )
        };
        let well = if names.len() == 1 {
            "is well by itself"
        } else {
            "are well by themselves"
        };
        Finding::Wrong(format!(
            "{plain} at {url}, although {} {well}; {because}",
            names.join(" and ")
        ))
    }

    /// Services that have another address than they had at preflight, in words.
    fn moved(&self, containers: &[Container]) -> Vec<String> {
        let words = |all: &BTreeSet<IpAddr>| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(" and ")
        };
        containers
            .iter()
            .filter_map(|container| {
                let fact = self.about.services.get(&container.service)?;
                let before: BTreeSet<IpAddr> = fact.addresses.iter().copied().collect();
                let now: BTreeSet<IpAddr> = container.networks.iter().map(|(_, ip)| *ip).collect();
                (!before.is_empty() && before != now).then(|| {
                    format!(
                        "{} was at {} before and is at {} now",
                        container.service,
                        words(&before),
                        words(&now)
                    )
                })
            })
            .collect()
    }
}

/// Statuses that are no verdict on the application yet: it, or a gateway, is busy, locked or starting.
fn passes(status: u16) -> bool {
    gateway(status) || matches!(status, 408 | 423 | 425 | 429)
}

/// Statuses with which a gateway says that it does not come to what is behind it. An application may say them too.
fn gateway(status: u16) -> bool {
    matches!(status, 502..=504)
}
