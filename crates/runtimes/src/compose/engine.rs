//! Questions to the engine, over its socket.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions,
    RemoveContainerOptions, RenameContainerOptions, TagImageOptions,
};
use bollard::{BollardRequest, Docker};
use futures_util::future::{BoxFuture, TryFutureExt as _, try_join_all};
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use keyroll_secret::{Redactor, Secret};

use super::container::Container;
use super::error::EngineError;
use super::labels;

/// The default of a question's time limit.
const LIMIT: Duration = Duration::from_secs(30);

/// The library's own way over a socket makes a connection for each question. A rotation asks more than a hundred, so here
/// they are kept and used again. One that the engine closed meanwhile is noticed before anything is sent on it.
fn kept_connections() -> impl Fn(BollardRequest) -> Answer + Send + Sync {
    let client = Client::builder(TokioExecutor::new()).build(UnixConnector);
    move |request| Box::pin(client.request(request).map_err(Error::from))
}

type Answer = BoxFuture<'static, Result<Response<Incoming>, Error>>;

/// A container engine, reached over its socket. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) docker: Docker,
    socket: PathBuf,
    limit: Duration,
    redactor: Redactor,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.socket.display())
    }
}

impl Engine {
    /// Where the engine listens by default.
    pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

    /// Connects and agrees on a version of the protocol. Questions have a limit of 30 seconds.
    pub async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let not_reached = |reason: String| EngineError::NotReached {
            socket: socket.to_owned(),
            reason,
        };
        let path = socket.to_string_lossy();
        // The client's own limit is a last resort; each question has its own below it.
        let address = hyper::Uri::from(hyperlocal::Uri::new(path.as_ref(), "/")).to_string();
        let docker = Docker::connect_with_custom_transport(
            kept_connections(),
            Some(address.trim_end_matches('/')),
            3600,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|e| not_reached(e.to_string()))?;
        let agreed = tokio::time::timeout(LIMIT, docker.negotiate_version()).await;
        let docker = match agreed {
            Ok(Ok(docker)) => docker,
            Ok(Err(e)) => return Err(not_reached(e.to_string())),
            Err(_) => return Err(not_reached(format!("no answer within {LIMIT:?}"))),
        };
        Ok(Self {
            docker,
            socket: socket.to_owned(),
            limit: LIMIT,
            redactor: Redactor::new(),
        })
    }

    /// The same engine, whose errors and log lines are cleaned by this redactor.
    #[must_use]
    pub fn redacting(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// The same engine, with another limit for each question.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Text of others, cleaned.
    pub(crate) fn clean(&self, text: &str) -> String {
        self.redactor.clean(text)
    }

    /// The containers of a compose project, whether they run or not, by service and number. One-off containers (`compose
    /// run`) are among them.
    pub async fn containers(&self, project: &str) -> Result<Vec<Container>, EngineError> {
        let label = format!("{}={project}", labels::PROJECT);
        self.list(Some(filter("label", &label))).await
    }

    /// Every container of the engine, also those that compose did not make: any of them may use a secret.
    pub async fn all_containers(&self) -> Result<Vec<Container>, EngineError> {
        self.list(None).await
    }

    /// One container by id or name.
    pub async fn container(&self, id: &str) -> Result<Container, EngineError> {
        let gone = || EngineError::Gone {
            what: format!("container {id}"),
        };
        self.inspect(id).await?.ok_or_else(gone)
    }

    async fn list(
        &self,
        filters: Option<HashMap<String, Vec<String>>>,
    ) -> Result<Vec<Container>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters,
            ..Default::default()
        };
        let listed = self
            .ask(
                "list containers",
                self.docker.list_containers(Some(options)),
            )
            .await?;
        let ids = listed.into_iter().filter_map(|c| c.id);
        let inspected = try_join_all(ids.map(|id| async move { self.inspect(&id).await })).await?;
        let mut all: Vec<Container> = inspected.into_iter().flatten().collect();
        all.sort_by(|a, b| {
            (&a.project, &a.service, a.one_off, a.number, &a.id)
                .cmp(&(&b.project, &b.service, b.one_off, b.number, &b.id))
        });
        Ok(all)
    }

    /// `None` when it is gone.
    async fn inspect(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let call = self
            .docker
            .inspect_container(id, None::<InspectContainerOptions>);
        match self.ask(&format!("inspect container {id}"), call).await {
            Ok(found) => Ok(Container::read(found)),
            Err(EngineError::Gone { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What an image reference resolves to now (`sha256:…`); `None` when there is no such image here. Pulls nothing.
    pub async fn image_id(&self, reference: &str) -> Result<Option<String>, EngineError> {
        let call = self.docker.inspect_image(reference);
        match self.ask(&format!("inspect image {reference}"), call).await {
            Ok(found) => Ok(found.id),
            Err(EngineError::Gone { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes a container that does not run. Its volumes stay.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let call = self
            .docker
            .remove_container(id, None::<RemoveContainerOptions>);
        match self.ask(&format!("remove container {id}"), call).await {
            Err(EngineError::Gone { .. }) => Ok(()),
            other => other,
        }
    }

    /// Gives a container another name.
    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let options = RenameContainerOptions {
            name: name.to_owned(),
        };
        let call = self.docker.rename_container(id, options);
        self.ask(&format!("rename container {id}"), call).await
    }

    /// Makes `reference` (`name:tag`) name the image `id`, as `docker tag` does. Repeating it changes nothing.
    pub(crate) async fn tag(&self, id: &str, reference: &str) -> Result<(), EngineError> {
        let (repo, tag) = split_reference(reference);
        let options = TagImageOptions {
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
        };
        self.ask(
            &format!("tag {id} as {reference}"),
            self.docker.tag_image(id, Some(options)),
        )
        .await
    }

    /// Ids of the networks that carry the project's label.
    pub(crate) async fn networks(&self, project: &str) -> Result<BTreeSet<String>, EngineError> {
        let filters = filter("label", &format!("{}={project}", labels::PROJECT));
        let options = ListNetworksOptions {
            filters: Some(filters),
        };
        let listed = self
            .ask("list networks", self.docker.list_networks(Some(options)))
            .await?;
        Ok(listed.into_iter().filter_map(|n| n.id).collect())
    }

    /// Whether a network of this name is there.
    pub(crate) async fn has_network(&self, name: &str) -> Result<bool, EngineError> {
        let options = ListNetworksOptions {
            filters: Some(filter("name", name)),
        };
        let listed = self
            .ask("list networks", self.docker.list_networks(Some(options)))
            .await?;
        Ok(listed.iter().any(|n| n.name.as_deref() == Some(name))) // the filter matches parts of names too
    }

    /// Names of the volumes that carry the project's label. Anonymous ones do not.
    pub(crate) async fn volumes(&self, project: &str) -> Result<BTreeSet<String>, EngineError> {
        let filters = filter("label", &format!("{}={project}", labels::PROJECT));
        let options = ListVolumesOptions {
            filters: Some(filters),
        };
        let listed = self
            .ask("list volumes", self.docker.list_volumes(Some(options)))
            .await?;
        Ok(listed
            .volumes
            .into_iter()
            .flatten()
            .map(|v| v.name)
            .collect())
    }

    /// Whether a volume of this name is there.
    pub(crate) async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        let call = self.docker.inspect_volume(name);
        match self.ask(&format!("inspect volume {name}"), call).await {
            Ok(_) => Ok(true),
            Err(EngineError::Gone { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The environment of a container, the image's own variables included.
    pub async fn env_of(
        &self,
        container: &str,
    ) -> Result<std::collections::BTreeMap<String, Secret>, EngineError> {
        self.container(container).await.map(|c| c.env)
    }

    /// Runs a call under the limit and turns its error into ours.
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(self.error(doing, &e)),
            Err(_) => Err(EngineError::Timeout {
                doing: doing.to_owned(),
                limit: self.limit,
            }),
        }
    }

    pub(crate) fn error(&self, doing: &str, error: &Error) -> EngineError {
        match error {
            Error::DockerResponseServerError {
                status_code: 404, ..
            } => EngineError::Gone {
                what: doing
                    .rsplit_once(' ')
                    .map_or(doing, |(_, what)| what)
                    .to_owned(),
            },
            other => EngineError::Unknown {
                doing: doing.to_owned(),
                reason: self.clean(&chain(other)),
            },
        }
    }
}

fn filter(key: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), vec![value.to_owned()])])
}

/// Repository and tag. A colon before a slash belongs to a registry's port.
fn split_reference(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, tag),
        _ => (reference, "latest"),
    }
}

/// An error with everything below it: the client's own text often says less than its source.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_port_is_not_taken_for_a_tag() {
        assert_eq!(split_reference("app:1"), ("app", "1"));
        assert_eq!(split_reference("app"), ("app", "latest"));
        assert_eq!(
            split_reference("reg:5000/team/app"),
            ("reg:5000/team/app", "latest")
        );
        assert_eq!(split_reference("reg:5000/app:2"), ("reg:5000/app", "2"));
    }

    #[tokio::test]
    async fn a_socket_where_nobody_listens_is_not_reached() {
        let error = Engine::connect(Path::new("/nonexistent/docker.sock"))
            .await
            .unwrap_err();
        assert!(matches!(error, EngineError::NotReached { .. }), "{error}");
        assert!(error.to_string().contains("/nonexistent/docker.sock"));
    }
}
