//! How a stack differs from the plain one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keyroll_secret::Secret;

use crate::proxy::Lookup;
use crate::{TestkitError, tree};

/// Changes the files of a deployment before it starts; gets its root.
type Prepare = Box<dyn FnOnce(&Path) -> Result<(), TestkitError> + Send>;

/// How to start a [`crate::Stack`]. The default is the deployment as it is in `sandbox/deploy`, under a unique project name, with
/// half as many health checks: each costs the engine some 80 ms of processor time, which is most of what a stack costs.
#[derive(Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a choice of its own, and a test makes one or two"
)]
pub struct StackOptions {
    pub(crate) chosen: BTreeMap<String, Secret>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) env_files: Vec<(PathBuf, String)>,
    pub(crate) compose_edits: Vec<(String, String)>,
    pub(crate) postgres_arguments: Vec<String>,
    pub(crate) prepare: Vec<Prepare>,
    pub(crate) md5_password: bool,
    pub(crate) own_panel_image: bool,
    pub(crate) project_from_directory: bool,
    pub(crate) proxy: Option<Lookup>,
    pub(crate) compose_v1: bool,
    pub(crate) place: Option<(PathBuf, String)>,
    pub(crate) every_second: bool,
}

impl StackOptions {
    /// The plain stack.
    pub fn new() -> Self {
        Self::default()
    }

    /// A secret of the env file that the test wants to know beforehand, instead of a random one: `POSTGRES_PASSWORD`,
    /// `JWT_SECRET`, `JWT_REFRESH_SECRET`, `ADMIN_PASSWORD`, `PROXMOX_TOKEN_SECRET` or `BACKUP_ENCRYPTION_KEY`. In
    /// `DATABASE_URL` the password is percent-encoded. Written unquoted: the value must not need quotes.
    #[must_use]
    pub fn secret(mut self, name: &str, value: Secret) -> Self {
        self.chosen.insert(name.to_owned(), value);
        self
    }

    /// Another value for a key of the env file, or another key, written as `KEY=value` as given.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A second env file (path from the root of the deployment), given to compose after the first.
    #[must_use]
    pub fn env_file(mut self, path: &str, content: &str) -> Self {
        self.env_files.push((path.into(), content.to_owned()));
        self
    }

    /// Replaces text in the compose file, everywhere it occurs. Starting fails when it does not occur.
    #[must_use]
    pub fn replace_in_compose(mut self, from: &str, to: &str) -> Self {
        self.compose_edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// More arguments for the database server, such as `-c log_statement=all`.
    #[must_use]
    pub fn postgres_arguments(mut self, arguments: &str) -> Self {
        self.postgres_arguments.push(arguments.to_owned());
        self
    }

    /// The official image's `POSTGRES_HOST_AUTH_METHOD`: `trust` for a database that checks no password on any path, `md5`
    /// for one that takes both kinds of verifier.
    #[must_use]
    pub fn host_auth_method(self, method: &str) -> Self {
        let database = "      POSTGRES_DB: ${POSTGRES_DB}\n";
        let with = format!("{database}      POSTGRES_HOST_AUTH_METHOD: {method}\n");
        self.replace_in_compose(database, &with)
    }

    /// The role's password is kept as an md5 hash, as in databases from before version 14.
    #[must_use]
    pub fn md5_password(mut self) -> Self {
        self.md5_password = true;
        self.host_auth_method("md5")
            .postgres_arguments("-c password_encryption=md5")
    }

    /// The panel's image gets a tag of this stack's own, which [`crate::Stack::rebuild_panel_image`] can move.
    #[must_use]
    pub fn own_panel_image(mut self) -> Self {
        self.own_panel_image = true;
        self
    }

    /// Compose is called without `-p` and names the project after the directory of the compose file: `deploy`. One such stack
    /// at a time; others wait.
    #[must_use]
    pub fn project_from_directory(mut self) -> Self {
        self.project_from_directory = true;
        self
    }

    /// nginx before the panel, with TLS (service `proxy`). [`crate::Stack::base_url`], [`crate::Stack::panel`] and keyroll go
    /// through it; the panel's own port stays published too. It finds api wherever that is.
    #[must_use]
    pub fn behind_tls_proxy(mut self) -> Self {
        self.proxy = Some(Lookup::Always);
        self
    }

    /// The same with an nginx that looks api's address up once, at its start. That is how most are set up.
    #[must_use]
    pub fn behind_tls_proxy_that_looks_once(mut self) -> Self {
        self.proxy = Some(Lookup::Once);
        self
    }

    /// `docker-compose` 1 starts it, and is what [`crate::Stack::compose`] runs.
    #[must_use]
    pub fn compose_v1(mut self) -> Self {
        self.compose_v1 = true;
        self
    }

    /// The database gets its first password from a file (`POSTGRES_PASSWORD_FILE`), and its environment does not hold it.
    #[must_use]
    pub fn password_file(self) -> Self {
        self.replace_in_compose(
            "      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}\n",
            "      POSTGRES_PASSWORD_FILE: /run/postgres-password\n",
        )
        .replace_in_compose(
            "      - postgres-data:/var/lib/postgresql/data\n",
            "      - postgres-data:/var/lib/postgresql/data\n      - ../../postgres-password:/run/postgres-password:ro\n",
        )
        .prepare(|root| {
            let env = root.join(tree::ENV_FILE);
            let text = std::fs::read_to_string(&env).map_err(TestkitError::io(&env))?;
            let value = tree::value(&text, "POSTGRES_PASSWORD").unwrap_or_else(|| Secret::new(""));
            let file = root.join("postgres-password");
            std::fs::write(&file, value.expose()).map_err(TestkitError::io(&file))
        })
    }

    /// Any other change of the files below the root, before the start.
    #[must_use]
    pub fn prepare(
        mut self,
        change: impl FnOnce(&Path) -> Result<(), TestkitError> + Send + 'static,
    ) -> Self {
        self.prepare.push(Box::new(change));
        self
    }

    /// Health is checked every second, as the compose file says: for a stack that is alone and watched.
    #[must_use]
    pub fn health_every_second(mut self) -> Self {
        self.every_second = true;
        self
    }

    /// At this root, under this project name, instead of a scratch directory and a unique name.
    #[must_use]
    pub fn at(mut self, root: impl Into<PathBuf>, project: &str) -> Self {
        self.place = Some((root.into(), project.to_owned()));
        self
    }
}
