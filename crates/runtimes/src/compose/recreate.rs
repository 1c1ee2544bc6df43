//! Recreating the consumers, and nothing else.
//!
//! `docker compose up -d --no-deps --force-recreate --no-build --pull never <services>`: without `--no-deps` a dependency
//! whose configuration changed too, such as the database with the password in its environment, would be recreated along, and
//! jobs would run again; without `--force-recreate` some versions leave a changed secret as it was.
//!
//! Images are pinned by comparing, not by a second compose file: an image id under `image:` would stand in the containers'
//! configuration hash and the file in their labels, and the next plain `up` would recreate everything again. So each
//! reference must name the image that ran, right before; and each new container must have it, right after.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::child::Broken;
use super::cli::{Cli, Compose};
use super::container::Container;
use super::engine::Engine;
use super::error::{ActError, CliError, EngineError};
use super::resolved::Resolved;

/// What is to be recreated.
#[derive(Debug, Clone)]
pub struct Recreate {
    /// The services, all in one call, so that compose orders them by their dependencies on one another.
    pub services: Vec<String>,
    /// The image id (`sha256:…`) that each service has to be made from. A service without an entry takes what its reference
    /// names.
    pub images: BTreeMap<String, String>,
    /// What to do when a reference names another image by now.
    pub moved: MovedImage,
    /// Build the images of services with a `build` section first, before anything stops. Their pins do not count then.
    pub build: bool,
    /// The addresses that each service's container had while all was well: they are started in this order, so that each gets its
    /// own back. May be empty.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// For the call of compose. At the limit it is ended, and the outcome is indeterminate.
    pub limit: Duration,
}

/// What to do when an image reference names another image than the one that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MovedImage {
    /// Change nothing and say so: forward.
    Refuse,
    /// Make it name the one that ran again, as `docker tag` does: on the way back.
    PointBack,
}

/// What was recreated.
#[derive(Debug, Clone)]
pub struct Recreated {
    /// The new containers.
    pub containers: Vec<Container>,
    /// References that were made to name the image that ran again.
    pub pointed_back: Vec<PointedBack>,
    /// When the call of compose began.
    pub began: Timestamp,
    /// How long the call of compose took.
    pub took: Duration,
}

/// A reference that was made to name another image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointedBack {
    /// The reference.
    pub reference: String,
    /// The image it named; `None` if none.
    pub from: Option<String>,
    /// The image it names now.
    pub to: String,
}

impl Cli {
    /// Recreates these services' containers with the configuration as it is now, as many of each as there are. Returns when
    /// they are started, not when they are healthy; see [`Engine::wait_healthy`]. May run more than once.
    ///
    /// Refuses, with nothing changed, when a service is not there, an image moved, or a volume or network would have to be
    /// made. Afterwards it is indeterminate when compose failed, or when what came out is not what was asked for.
    pub async fn recreate(
        &self,
        engine: &Engine,
        wanted: &Recreate,
    ) -> Result<Recreated, ActError> {
        let not = |e: &dyn std::error::Error| ActError::NotApplied(e.to_string());
        let resolved = self.resolved(None).await.map_err(|e| not(&e))?;
        self.recreate_as(engine, wanted, &resolved).await
    }

    /// [`Cli::recreate`], for a caller who has just asked for the configuration and judged it.
    pub async fn recreate_as(
        &self,
        engine: &Engine,
        wanted: &Recreate,
        resolved: &Resolved,
    ) -> Result<Recreated, ActError> {
        let not = |e: &dyn std::error::Error| ActError::NotApplied(e.to_string());
        if wanted.services.is_empty() {
            return Err(ActError::NotApplied("no service was named".into()));
        }
        let before = self.picture(engine).await.map_err(|e| not(&e))?;
        self.nothing_to_make(engine, wanted, resolved).await?;
        let scale = self.scale(wanted, resolved, &before.containers)?;
        if wanted.build {
            self.build(engine, wanted, resolved).await?;
        }
        let pointed_back = self.pin(engine, wanted, resolved).await?;

        // Nothing has changed until here.
        let before = if self
            .clear_up(engine, &wanted.services, &before.containers)
            .await?
        {
            self.picture(engine)
                .await
                .map_err(|e| ActError::Indeterminate(e.to_string()))?
        } else {
            before
        };

        let began = Timestamp::now();
        let clock = Instant::now();
        let order = self.start_order(wanted, resolved);
        self.up(wanted, &scale, order.is_none()).await?;
        if let Some(order) = &order {
            self.start_one_by_one(engine, order).await?;
        }
        let took = clock.elapsed();

        let after = self.picture(engine).await.map_err(|e| {
            ActError::Indeterminate(format!(
                "compose has done it, but it cannot be looked at: {e}"
            ))
        })?;
        let containers =
            new_containers(wanted, resolved, &before, &after).map_err(ActError::Indeterminate)?;
        Ok(Recreated {
            containers,
            pointed_back,
            began,
            took,
        })
    }

    /// Has the references of these services name the pinned images, and does nothing else.
    pub async fn point_back(
        &self,
        engine: &Engine,
        wanted: &Recreate,
    ) -> Result<Vec<PointedBack>, ActError> {
        let resolved = self.resolved(None).await;
        let resolved = resolved.map_err(|e| ActError::NotApplied(e.to_string()))?;
        self.pin(engine, wanted, &resolved).await
    }

    /// Volumes and networks of the services must be there: compose would make an empty one in silence.
    async fn nothing_to_make(
        &self,
        engine: &Engine,
        wanted: &Recreate,
        resolved: &Resolved,
    ) -> Result<(), ActError> {
        let not = |e: EngineError| ActError::NotApplied(e.to_string());
        for name in &wanted.services {
            let service = resolved.services.get(name).ok_or_else(|| {
                ActError::NotApplied(format!("the configuration has no service {name}"))
            })?;
            for volume in &service.volumes {
                if !engine.has_volume(volume).await.map_err(not)? {
                    return Err(ActError::NotApplied(format!(
                        "volume {volume} of service {name} is not there, and compose would make an empty one"
                    )));
                }
            }
            for network in &service.networks {
                if !engine.has_network(network).await.map_err(not)? {
                    return Err(ActError::NotApplied(format!(
                        "network {network} of service {name} is not there, and compose would make one"
                    )));
                }
            }
        }
        Ok(())
    }

    /// `--scale` for services that run in another number than configured, which a plain `up` would change.
    fn scale(
        &self,
        wanted: &Recreate,
        resolved: &Resolved,
        containers: &[Container],
    ) -> Result<Vec<String>, ActError> {
        let mut scale = Vec::new();
        for name in &wanted.services {
            // By number: a recreation that was cut off leaves two containers with the same one.
            let numbers: BTreeSet<u32> = containers
                .iter()
                .filter(|c| c.service == *name && !c.one_off)
                .map(|c| c.number)
                .collect();
            let configured = resolved.services[name].replicas;
            match u32::try_from(numbers.len()).unwrap_or(u32::MAX) {
                0 => {
                    return Err(ActError::NotApplied(format!(
                        "service {name} of project {} has no container, and none is made that was not there",
                        self.project().name
                    )));
                }
                n if n != configured => scale.push(format!("{name}={n}")),
                _ => {}
            }
        }
        Ok(scale)
    }

    async fn build(
        &self,
        engine: &Engine,
        wanted: &Recreate,
        resolved: &Resolved,
    ) -> Result<(), ActError> {
        let built: Vec<&str> = wanted
            .services
            .iter()
            .filter(|s| resolved.services[*s].builds)
            .map(String::as_str)
            .collect();
        if built.is_empty() {
            return Ok(());
        }
        let mut command = vec!["build"];
        command.extend(&built);
        let reason = match self.run(self.stack(None), &command, wanted.limit).await {
            Ok(done) if done.status.success() => return Ok(()),
            Ok(done) => format!("{}: {}", done.status, self.said(&done.stderr)),
            Err(broken) => why(&broken, wanted.limit),
        };
        // One image may have been built and another not: let all references name what ran.
        let back = Recreate {
            moved: MovedImage::PointBack,
            build: false,
            ..wanted.clone()
        };
        let back = self.pin(engine, &back, resolved).await.map(drop);
        let state = match back {
            Ok(()) => "no container was touched, and every image reference names what ran",
            Err(_) => "no container was touched, but image references may name new images",
        };
        Err(ActError::NotApplied(format!(
            "building failed: {reason}; {state}"
        )))
    }

    /// Sees to it that every reference names the pinned image.
    async fn pin(
        &self,
        engine: &Engine,
        wanted: &Recreate,
        resolved: &Resolved,
    ) -> Result<Vec<PointedBack>, ActError> {
        let not = |e: EngineError| ActError::NotApplied(e.to_string());
        let mut moved = Vec::new();
        for name in &wanted.services {
            let Some(to) = wanted.images.get(name) else {
                continue;
            };
            if wanted.build && resolved.services[name].builds {
                continue;
            }
            let project = &self.project().name;
            let Some(reference) = resolved.image_of(project, name) else {
                continue;
            };
            let from = engine.image_id(&reference).await.map_err(not)?;
            if from.as_ref() == Some(to) {
                continue;
            }
            match wanted.moved {
                MovedImage::Refuse => {
                    return Err(ActError::NotApplied(format!(
                        "{reference} names {} now, and service {name} ran {to}; deploy the new image first, or `docker tag` the old one back",
                        from.as_deref().unwrap_or("no image")
                    )));
                }
                MovedImage::PointBack => moved.push(PointedBack {
                    reference,
                    from,
                    to: to.clone(),
                }),
            }
        }
        for back in &moved {
            if engine.image_id(&back.to).await.map_err(not)?.is_none() {
                return Err(ActError::NotApplied(format!(
                    "the image {} that {} named is no longer on this host",
                    back.to, back.reference
                )));
            }
            engine.tag(&back.to, &back.reference).await.map_err(not)?;
        }
        Ok(moved)
    }

    /// Makes the containers anew, and starts them or not.
    async fn up(&self, wanted: &Recreate, scale: &[String], start: bool) -> Result<(), ActError> {
        let how = if start { "-d" } else { "--no-start" };
        let mut command = vec!["up", how, "--no-deps", "--force-recreate", "--no-build"];
        if matches!(self.compose(), Compose::V2(_)) {
            command.extend(["--pull", "never"]);
        }
        for one in scale {
            command.extend(["--scale", one]);
        }
        command.extend(wanted.services.iter().map(String::as_str));
        match self.run(self.stack(None), &command, wanted.limit).await {
            Ok(done) if done.status.success() => Ok(()),
            Ok(done) => Err(ActError::Indeterminate(format!(
                "`compose up` failed ({}): {}",
                done.status,
                self.said(&done.stderr)
            ))),
            Err(Broken::NotStarted(reason)) => Err(ActError::NotApplied(format!(
                "`compose up` was not started: {reason}"
            ))),
            Err(broken) => Err(ActError::Indeterminate(format!(
                "`compose up`: {}",
                why(&broken, wanted.limit)
            ))),
        }
    }

    async fn picture(&self, engine: &Engine) -> Result<Picture, CliError> {
        let name = &self.project().name;
        let (containers, volumes, networks) = tokio::try_join!(
            engine.containers(name),
            engine.volumes(name),
            engine.networks(name)
        )?;
        Ok(Picture {
            containers,
            volumes,
            networks,
        })
    }
}

/// What a project has.
struct Picture {
    containers: Vec<Container>,
    volumes: BTreeSet<String>,
    networks: BTreeSet<String>,
}

fn why(broken: &Broken, limit: Duration) -> String {
    match broken {
        Broken::NotStarted(reason) | Broken::Output(reason) => reason.clone(),
        Broken::Timeout(true) => format!("it took longer than {limit:?} and was ended"),
        Broken::Timeout(false) => {
            format!("it took longer than {limit:?}, and parts of it may still run")
        }
    }
}

/// The containers that came out, if they are what was asked for.
fn new_containers(
    wanted: &Recreate,
    resolved: &Resolved,
    before: &Picture,
    after: &Picture,
) -> Result<Vec<Container>, String> {
    let old: BTreeMap<&str, &Container> = before
        .containers
        .iter()
        .map(|c| (c.id.as_str(), c))
        .collect();
    let mut new = Vec::new();
    for name in &wanted.services {
        let of = |c: &&Container| c.service == *name && !c.one_off;
        let mut any = false;
        for container in after.containers.iter().filter(of) {
            any = true;
            if old.contains_key(container.id.as_str()) {
                return Err(format!("{} was not recreated", container.name));
            }
            let pinned = wanted
                .images
                .get(name)
                .filter(|_| !(wanted.build && resolved.services[name].builds));
            if let Some(image) = pinned.filter(|i| **i != container.image_id) {
                return Err(format!(
                    "{} was made from image {} instead of {image}",
                    container.name, container.image_id
                ));
            }
            let had: BTreeSet<&String> = before
                .containers
                .iter()
                .filter(of)
                .flat_map(|c| &c.volumes)
                .collect();
            if let Some(made) = container.volumes.iter().find(|v| !had.contains(v)) {
                return Err(format!(
                    "{} got a volume that was not there: {made}",
                    container.name
                ));
            }
            new.push(container.clone());
        }
        if !any {
            return Err(format!("service {name} has no container any more"));
        }
    }
    let touched = before
        .containers
        .iter()
        .filter(|c| !wanted.services.contains(&c.service))
        .find(|c| after.containers.iter().all(|now| now.id != c.id));
    if let Some(other) = touched {
        return Err(format!(
            "{} is gone, which was not to be touched",
            other.name
        ));
    }
    if let Some(made) = after.volumes.difference(&before.volumes).next() {
        return Err(format!("the volume {made} was made"));
    }
    if let Some(made) = after.networks.difference(&before.networks).next() {
        return Err(format!("the network {made} was made"));
    }
    Ok(new)
}
