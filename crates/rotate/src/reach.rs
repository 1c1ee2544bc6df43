//! Where the database is reached over a path that asks for passwords.
//!
//! Loopback and socket of the official image trust everybody, so what is accepted there proves nothing. Three ways come to the
//! server from an address that is not its loopback, the plainest first:
//!
//! 1. from this host, its container's own address;
//! 2. from this host, a port that is published;
//! 3. through another container on one of its networks, at last through its own, to its own address there ([`Relay`]).
//!
//! The third is for hosts that have no way to their containers: rootless engines, macvlan networks, a firewall. Whether
//! passwords are really asked for is shown by the negative control on the way that was chosen, not assumed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use keyroll_journal::RotationId;
use keyroll_providers::postgres::{Address, Endpoint, greet};
use keyroll_runtimes::compose::{Container, Engine, Published, State};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::about::{About, Fate, ServiceFact};
use crate::relay::{PROGRAMS, Relay};

/// Time for a connection on this host; none takes longer that does not hang.
const REACHED_WITHIN: Duration = Duration::from_secs(2);
/// Time for all programs in all containers. Most that do not work say so at once.
const RELAYED_WITHIN: Duration = Duration::from_secs(20);

/// Who looks for a way, and where.
pub(crate) struct Reach<'a> {
    pub(crate) engine: &'a Engine,
    /// The project's containers as they are now.
    pub(crate) containers: &'a [Container],
    pub(crate) about: &'a About,
    /// Marks what is started in a container.
    pub(crate) rotation: &'a RotationId,
}

impl Reach<'_> {
    /// The first way on which the database takes a connection; else what stood in the way of each.
    pub(crate) async fn endpoint(&self) -> Result<Endpoint, String> {
        match self.by_this_host().await {
            Ok(endpoint) => Ok(endpoint),
            Err(why) => self.through_another(&why).await,
        }
    }

    /// From this host; the containers but the database's do not matter.
    pub(crate) async fn by_this_host(&self) -> Result<Endpoint, String> {
        let (database, port) = self.database()?;
        let own = match own_address(database, port).await {
            Ok(address) => return self.at(address),
            Err(why) => why,
        };
        match published_port(database, port).await {
            Ok(address) => self.at(address),
            Err(why) => Err(format!(
                "from this host at its own address ({own}), from this host at a published port ({why})"
            )),
        }
    }

    /// Through another container, when there is no way from this host, and why.
    pub(crate) async fn through_another(&self, why: &str) -> Result<Endpoint, String> {
        let (database, port) = self.database()?;
        match self.relay(database, port).await {
            Ok(relay) => self.at(Address::through(relay)),
            Err(relayed) => Err(format!(
                "{} takes no connection on any path that checks passwords: {why}, through a container on its network ({relayed}); \
                 see `docker logs {}`, and whether database.port is right",
                database.service, database.name
            )),
        }
    }

    /// Its container and its port.
    fn database(&self) -> Result<(&Container, u16), String> {
        let spec = self.about.profile.database.as_ref();
        let spec = spec.ok_or("the profile has no [database] section")?;
        let found = self.containers.iter().find(|c| c.service == spec.service);
        let found = found
            .ok_or_else(|| format!("service {} of [database] has no container", spec.service))?;
        Ok((found, spec.port))
    }

    fn at(&self, address: Address) -> Result<Endpoint, String> {
        let fact = self.about.database.as_ref();
        let fact = fact.ok_or("the profile has no [database] section")?;
        Ok(Endpoint {
            address,
            database: fact.database.clone(),
            role: fact.role.clone(),
        })
    }

    /// The first program in the first container that brings an answer of the server.
    async fn relay(&self, database: &Container, port: u16) -> Result<Relay, String> {
        let until = Instant::now() + RELAYED_WITHIN;
        let mut tried = vec![];
        for (container, ip) in peers(database, self.containers, &self.about.services) {
            let mut failed = None;
            for program in &PROGRAMS {
                let relay = Relay {
                    engine: self.engine.clone(),
                    container: container.id.clone(),
                    name: container.name.clone(),
                    program,
                    server: SocketAddr::new(ip, port),
                    rotation: self.rotation.to_string(),
                };
                match timeout_at(until, relay.is_answered()).await {
                    Ok(Ok(())) => return Ok(relay),
                    Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
                    Ok(Err(e)) => {
                        failed.get_or_insert_with(|| format!("{}: {}", program.name, told(&e)));
                    }
                    Err(_) => {
                        tried.push(format!("{}: {RELAYED_WITHIN:?} were over", container.name));
                        return Err(tried.join("; "));
                    }
                }
            }
            let why = failed.unwrap_or_else(no_program);
            tried.push(format!("{}: {why}", container.name));
        }
        if tried.is_empty() {
            tried.push("none that runs shares one".to_owned());
        }
        Err(tried.join("; "))
    }
}

fn no_program() -> String {
    let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
    format!("it has none of {}", names.join(", "))
}

/// At its own address, as this host sees it.
async fn own_address(database: &Container, port: u16) -> Result<Address, String> {
    let mut failed = vec![];
    for (_, ip) in &database.networks {
        let address = SocketAddr::new(*ip, port);
        match within(TcpStream::connect(address)).await {
            Ok(_) => return Ok(Address::ip(*ip, port)),
            Err(e) => failed.push(format!("{address}: {}", told(&e))),
        }
    }
    Err(none_or(&failed, "it has none"))
}

/// At a published port. The engine's proxy there takes every connection, so the server must have answered.
async fn published_port(database: &Container, port: u16) -> Result<Address, String> {
    let mut failed = vec![];
    for address in published(&database.published, port) {
        let asked = async { greet(&mut TcpStream::connect(address).await?).await };
        match within(asked).await {
            Ok(()) => return Ok(Address::ip(address.ip(), address.port())),
            Err(e) => failed.push(format!("{address}: {}", told(&e))),
        }
    }
    Err(none_or(&failed, "none is published"))
}

/// Where this host finds what is published.
fn published(all: &[Published], port: u16) -> Vec<SocketAddr> {
    let ours = all.iter().filter(|p| p.port == port && p.protocol == "tcp");
    let mut addresses = vec![];
    for Published { host, .. } in ours {
        let address = if host.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), host.port())
        } else {
            *host
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Containers from which the database's own address can be reached, with that address: first those that the rotation leaves
/// alone, at last the database's own.
///
/// A container that shares the database's network stack has no network of its own and is none of them: it would come to the
/// server as the server itself does, which is left to the last.
fn peers<'a>(
    database: &'a Container,
    all: &'a [Container],
    services: &BTreeMap<String, ServiceFact>,
) -> Vec<(&'a Container, IpAddr)> {
    let recreated = |c: &Container| {
        services
            .get(&c.service)
            .is_some_and(|s| s.fate == Fate::Recreated)
    };
    let shared = |c: &Container| {
        let mut networks = database.networks.iter();
        networks
            .find(|(name, _)| c.networks.iter().any(|(other, _)| other == name))
            .map(|(_, ip)| *ip)
    };
    let mut found: Vec<(&Container, IpAddr)> = all
        .iter()
        .filter(|c| c.state == State::Running && !c.one_off)
        .filter_map(|c| Some((c, shared(c)?)))
        .collect();
    found.sort_by_key(|(c, _)| (c.id == database.id, recreated(c)));
    found
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
    timeout(REACHED_WITHIN, work).await.unwrap_or_else(late)
}

fn none_or(failed: &[String], none: &str) -> String {
    if failed.is_empty() {
        none.to_owned()
    } else {
        failed.join("; ")
    }
}

/// An error in as few words as it has; of a program's words the last line.
fn told(error: &io::Error) -> String {
    if error.raw_os_error().is_some() {
        return error.kind().to_string();
    }
    let text = error.to_string();
    text.lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(service: &str, networks: &[(&str, &str)]) -> Container {
        Container {
            id: format!("id-of-{service}"),
            name: format!("p-{service}-1"),
            service: service.into(),
            project: "p".into(),
            number: 1,
            one_off: false,
            image_ref: "app:1".into(),
            image_id: "sha256:aa".into(),
            config_hash: None,
            compose_version: None,
            working_dir: None,
            config_files: vec![],
            env_files: vec![],
            depends_on: [].into(),
            state: State::Running,
            health: keyroll_runtimes::compose::Health::None,
            restart: keyroll_runtimes::compose::Restart::No,
            restart_count: 0,
            env: [].into(),
            command: vec![],
            healthcheck: vec![],
            labels: [].into(),
            networks: networks
                .iter()
                .map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()))
                .collect(),
            published: vec![],
            volumes: [].into(),
            created_at: None,
            started_at: None,
            pid: Some(1),
        }
    }

    fn fate(fate: Fate) -> ServiceFact {
        ServiceFact {
            container: String::new(),
            image: String::new(),
            sick: None,
            fate,
            done: false,
            addresses: vec![],
        }
    }

    #[test]
    fn containers_that_stay_come_first_and_the_databases_own_last() {
        let database = container("db", &[("back", "172.20.0.2"), ("side", "172.21.0.2")]);
        let mut stopped = container("cache", &[("back", "172.20.0.9")]);
        stopped.state = State::Exited(0);
        let mut frozen = container("queue", &[("back", "172.20.0.8")]);
        frozen.state = State::Paused;
        let mut job = container("job", &[("back", "172.20.0.7")]);
        job.one_off = true;
        let all = [
            container("api", &[("back", "172.20.0.3")]),
            stopped,
            database.clone(),
            container("exporter", &[]), // network_mode: service:db
            frozen,
            container("front", &[("web", "172.22.0.2")]),
            job,
            container("proxy", &[("side", "172.21.0.5"), ("web", "172.22.0.3")]),
        ];
        let services = BTreeMap::from([
            ("api".to_owned(), fate(Fate::Recreated)),
            ("db".to_owned(), fate(Fate::Kept)),
            ("proxy".to_owned(), fate(Fate::Untouched)),
        ]);
        let found: Vec<(&str, String)> = peers(&database, &all, &services)
            .into_iter()
            .map(|(c, ip)| (c.service.as_str(), ip.to_string()))
            .collect();
        assert_eq!(
            found,
            [
                ("proxy", "172.21.0.2".to_owned()),
                ("api", "172.20.0.2".to_owned()),
                ("db", "172.20.0.2".to_owned()),
            ],
            "and each sees the database at its address on the network that they share"
        );
    }

    #[test]
    fn a_port_published_everywhere_is_looked_for_once_on_this_host() {
        let on = |host: &str, port: u16, protocol: &str| Published {
            host: host.parse().unwrap(),
            port,
            protocol: protocol.into(),
        };
        let all = [
            on("0.0.0.0:15432", 5432, "tcp"),
            on("10.0.0.5:25432", 5432, "tcp"),
            on("[::]:15432", 5432, "tcp"),
            on("0.0.0.0:15433", 5433, "tcp"),
            on("0.0.0.0:15434", 5432, "udp"),
        ];
        let found = published(&all, 5432);
        let wanted: Vec<SocketAddr> = ["127.0.0.1:15432", "10.0.0.5:25432"]
            .map(|a| a.parse().unwrap())
            .into();
        assert_eq!(found, wanted);
    }

    #[tokio::test]
    async fn a_proxy_that_takes_the_connection_and_finds_no_server_is_no_way() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.unwrap();
        let host = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((taken, _)) = listener.accept().await {
                drop(taken);
            }
        });
        let mut database = container("db", &[]);
        database.published = vec![Published {
            host,
            port: 5432,
            protocol: "tcp".into(),
        }];
        let why = published_port(&database, 5432).await.unwrap_err();
        assert!(why.starts_with(&format!("{host}: ")), "{why}");
        database.published.clear();
        let why = published_port(&database, 5432).await.unwrap_err();
        assert_eq!(why, "none is published");
    }
}
