//! The shape of a profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keyroll_secret::{Alphabet, Format};
use serde::{Deserialize, Serialize};

use super::integration::{AlertSpec, ApiSpec, MakeSpec, ScheduleSpec, SettingsSpec, WebhookSpec};

/// One stack. Paths are absolute once loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Names the stack on this host.
    pub name: String,
    /// Where the stack is deployed; relative paths start here.
    pub root: PathBuf,
    /// Where keyroll keeps its own files.
    pub paths: PathSpec,
    /// What runs the consumers.
    pub compose: ComposeSpec,
    /// The `PostgreSQL` server, if there is one.
    pub database: Option<DatabaseSpec>,
    /// How the panel is checked, as a user reaches it.
    pub http: Option<HttpSpec>,
    /// The admin's account.
    pub admin: Option<AdminSpec>,
    /// The application's session rows.
    pub sessions: Option<SessionSpec>,
    /// The application's settings table, for secrets that are kept there.
    pub settings: Option<SettingsSpec>,
    /// The secrets by name.
    pub secrets: BTreeMap<String, SecretSpec>,
    /// Named lists of secrets.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// What is saved besides what keyroll itself writes.
    #[serde(default)]
    pub backup: BackupSpec,
    /// The summary of a completed rotation.
    #[serde(default)]
    pub summary: SummarySpec,
    /// When rotations are due.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Who is told of unattended runs, by any name.
    #[serde(default)]
    pub alerts: BTreeMap<String, AlertSpec>,
    /// How long things may take or are kept.
    #[serde(default)]
    pub limits: LimitSpec,
}

/// keyroll's own paths on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSpec {
    /// Directory of the state database.
    pub state: PathBuf,
    /// File of the age identity.
    pub identity: PathBuf,
    /// Directory that each backup gets a directory in.
    pub backups: PathBuf,
    /// Directory of the summaries.
    pub summaries: PathBuf,
    /// Directory of the runbook's scripts, where the stack has some.
    pub scripts: Option<PathBuf>,
}

/// A compose project.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeSpec {
    /// The compose files, in order.
    pub files: Vec<PathBuf>,
    /// The files given to compose as `--env-file`, in order; secrets are edited in these.
    pub env_files: Vec<PathBuf>,
    /// The project's name where it must be a certain one; otherwise the running containers' own.
    pub project: Option<String>,
    /// Services that are not recreated although their environment changes.
    #[serde(default)]
    pub keep: Vec<String>,
    /// The engine's socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
}

fn default_socket() -> PathBuf {
    "/var/run/docker.sock".into()
}

/// A `PostgreSQL` server that runs as one of the services.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    /// The service.
    pub service: String,
    /// The port it listens on inside its network.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The role that logs in.
    pub role: Source,
    /// The database.
    pub name: Source,
    /// The secret that is the role's password.
    pub password: String,
    /// Writes a SCRAM verifier even where the role has an md5 one.
    #[serde(default)]
    pub upgrade_md5: bool,
}

fn default_port() -> u16 {
    5432
}

/// How the application is reached and what it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// Scheme, host and port, without a path.
    pub base_url: String,
    /// Connects to this address instead of asking DNS for the host of `base_url`.
    pub connect_to: Option<std::net::IpAddr>,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Answers 200 when the application is well.
    pub health: String,
    /// Pages that need a session.
    #[serde(default)]
    pub pages: Vec<String>,
    /// 4xx statuses with which a page, a login or a refresh refuses.
    #[serde(default = "default_refused")]
    pub refused: Vec<u16>,
    /// A redirect to this path refuses too.
    pub login_page: Option<String>,
    /// The cookie that carries the access token; `Authorization: Bearer` where it is not given.
    pub session_cookie: Option<String>,
    /// Logging in.
    pub login: Option<LoginSpec>,
    /// Getting a new access token for a refresh token.
    pub refresh: Option<RefreshSpec>,
}

fn default_refused() -> Vec<u16> {
    vec![401, 403]
}

/// A login by JSON POST.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginSpec {
    /// Where to.
    pub path: String,
    /// The field that takes the e-mail address.
    pub email_field: String,
    /// The field that takes the password.
    pub password_field: String,
    /// Where the access token stands in the answer.
    pub access_token: TokenSpec,
    /// Where the refresh token stands, if there is one.
    pub refresh_token: Option<TokenSpec>,
    /// The number of wrong logins at which the application locks the account; keyroll stays under it.
    #[serde(default = "default_wrong_limit")]
    pub wrong_limit: u32,
}

fn default_wrong_limit() -> u32 {
    5
}

/// Where a token stands in an answer: a JSON pointer (RFC 6901), or `{ cookie = "name" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a JSON pointer such as \"/accessToken\", or { cookie = \"name\" }"
)]
pub enum TokenSpec {
    /// In the body.
    Json(String),
    /// In a `Set-Cookie` header.
    Cookie {
        /// The cookie's name.
        cookie: String,
    },
}

/// A refresh by POST.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshSpec {
    /// Where to.
    pub path: String,
    /// The JSON field that takes the refresh token.
    pub token_field: Option<String>,
    /// The cookie that takes it; without either it goes as `Authorization: Bearer`.
    pub token_cookie: Option<String>,
    /// Where the new access token stands.
    pub access_token: TokenSpec,
    /// Where the next refresh token stands, if the application replaces it.
    pub refresh_token: Option<TokenSpec>,
}

/// The admin's account in the application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSpec {
    /// The address that logs in.
    pub email: Source,
    /// The secret that is its password.
    pub password: String,
    /// The table that holds the account.
    pub table: String,
    /// Its column with the address.
    pub email_column: String,
    /// Its column with the password's hash.
    pub hash_column: String,
    /// What puts the password of the environment into the database.
    pub seed: SeedSpec,
}

/// A command in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedSpec {
    /// The service whose container runs it.
    pub service: String,
    /// The command and its arguments.
    pub command: Vec<String>,
}

/// The application's session table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// The table.
    pub table: String,
    /// Its key column.
    pub id_column: String,
    /// Its column that says whether, or when, the session was revoked.
    pub revoked_column: String,
}

/// One secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// What it is, which says how it is applied and proven.
    pub kind: SecretKind,
    /// Its key in the env files. The secret's name where it is not given; none where the secret is kept in a setting.
    #[serde(default)]
    pub key: String,
    /// The setting that holds it.
    pub setting: Option<String>,
    /// The setting that holds the value before it for a grace window, in which the application accepts both.
    pub previous: Option<String>,
    /// Hours that a provider is given to cut over, at least.
    #[serde(default = "default_grace_hours")]
    pub grace_hours: u32,
    /// Days after which it should be rotated again; never where it is not given.
    pub interval_days: Option<u32>,
    /// Where the provider of the secret is asked about it, where that is not the provider's own address.
    pub api: Option<ApiSpec>,
    /// How keyroll makes it, where it is a Proxmox token.
    pub make: Option<MakeSpec>,
    /// The application's endpoint for events that are signed with it.
    pub webhook: Option<WebhookSpec>,
    /// Nothing that is kept is encrypted with it, although its name or its application says so.
    #[serde(default)]
    pub keeps_nothing: bool,
    /// What new values look like.
    #[serde(default)]
    pub format: FormatSpec,
}

fn default_grace_hours() -> u32 {
    72
}

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// Signs access tokens (JWT, HS256 family).
    AccessTokenKey,
    /// Signs refresh tokens.
    RefreshTokenKey,
    /// The password of the database role.
    PostgresPassword,
    /// The password of the admin's account.
    AdminPassword,
    /// Read from the environment and nothing else; proven by what the consumers run with.
    Environment,
    /// Paystack's secret key. It also signs the events that Paystack sends.
    PaystackKey,
    /// Flutterwave's secret key, version 3 of the API.
    FlutterwaveKey,
    /// Flutterwave's secret hash, which stands in each event of version 3.
    FlutterwaveWebhookHash,
    /// Flutterwave's client secret, version 4 of the API.
    FlutterwaveClientSecret,
    /// Signs Flutterwave's events of version 4.
    FlutterwaveWebhookSecret,
    /// Stripe's secret or restricted key.
    StripeKey,
    /// Signs Stripe's events.
    StripeWebhookSecret,
    /// The value of a Proxmox API token.
    ProxmoxToken,
    /// The URL of an incoming webhook of Slack.
    SlackUrl,
    /// The URL of a webhook of Discord.
    DiscordUrl,
    /// The token of a Telegram bot.
    TelegramToken,
}

impl SecretKind {
    /// Whether somebody else makes the value, so that a rotation has to be given it.
    pub fn comes_from_outside(self) -> bool {
        !matches!(
            self,
            Self::AccessTokenKey
                | Self::RefreshTokenKey
                | Self::PostgresPassword
                | Self::AdminPassword
                | Self::Environment
        )
    }

    /// Whether application sessions end with the old value: it signs or opens them.
    pub fn ends_sessions(self) -> bool {
        matches!(
            self,
            Self::AccessTokenKey | Self::RefreshTokenKey | Self::AdminPassword
        )
    }
}

/// What new values look like.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormatSpec {
    /// `url-safe`, `alphanumeric` or `hex`.
    #[serde(default)]
    pub alphabet: AlphabetSpec,
    /// Characters; as many as make 256 bits where it is not given.
    pub length: Option<usize>,
}

/// An alphabet's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlphabetSpec {
    /// `A-Z a-z 0-9 _ -`.
    #[default]
    UrlSafe,
    /// `A-Z a-z 0-9`.
    Alphanumeric,
    /// `0-9 a-f`.
    Hex,
}

/// A value that stands in the env file, or here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// The value of this key in the env files.
    Env(String),
    /// This value.
    Value(String),
}

/// What is saved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSpec {
    /// Globs under the root.
    #[serde(default)]
    pub files: Vec<String>,
    /// age or SSH public keys that can open it besides keyroll's own identity.
    #[serde(default)]
    pub recipients: Vec<String>,
}

/// The summary.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummarySpec {
    /// With any, the summary is encrypted to them.
    #[serde(default)]
    pub recipients: Vec<String>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSpec {
    /// Seconds until recreated containers are healthy.
    pub healthy_seconds: u64,
    /// Seconds for the seed command.
    pub seed_seconds: u64,
    /// Seconds for one HTTP request.
    pub request_seconds: u64,
    /// Seconds for the database dump.
    pub dump_seconds: u64,
    /// Days for which replaced values are kept.
    pub keep_days: u32,
}

impl Default for LimitSpec {
    fn default() -> Self {
        Self {
            healthy_seconds: 120,
            seed_seconds: 60,
            request_seconds: 10,
            dump_seconds: 3600,
            keep_days: 7,
        }
    }
}

impl Default for FormatSpec {
    fn default() -> Self {
        Self {
            alphabet: AlphabetSpec::UrlSafe,
            length: None,
        }
    }
}

impl FormatSpec {
    /// The format, or why it is too weak.
    pub fn resolve(self) -> Result<Format, keyroll_secret::FormatError> {
        let alphabet = match self.alphabet {
            AlphabetSpec::UrlSafe => Alphabet::UrlSafe,
            AlphabetSpec::Alphanumeric => Alphabet::Alphanumeric,
            AlphabetSpec::Hex => Alphabet::Hex,
        };
        self.length.map_or_else(
            || Ok(Format::strong(alphabet)),
            |length| Format::new(alphabet, length),
        )
    }
}

impl SecretSpec {
    /// Its key in the env file, if it has one.
    pub fn env_key(&self) -> Option<&str> {
        Some(self.key.as_str()).filter(|key| !key.is_empty())
    }
}

impl Profile {
    /// Makes paths absolute and fills in names that default to others.
    pub(super) fn settle(&mut self) {
        let root = self.root.clone();
        let absolute = |path: &mut PathBuf| *path = root.join(&*path);
        self.compose.files.iter_mut().for_each(absolute);
        self.compose.env_files.iter_mut().for_each(absolute);
        self.paths.scripts.iter_mut().for_each(absolute);
        for path in [
            &mut self.paths.state,
            &mut self.paths.identity,
            &mut self.paths.backups,
            &mut self.paths.summaries,
        ] {
            absolute(path);
        }
        let apis = self.secrets.values_mut().filter_map(|s| s.api.as_mut());
        let authorities = apis.filter_map(|api| api.ca_file.as_mut());
        let own = self.http.as_mut().and_then(|h| h.ca_file.as_mut());
        authorities.chain(own).for_each(absolute);
        for (name, secret) in &mut self.secrets {
            if secret.key.is_empty() && secret.setting.is_none() {
                secret.key.clone_from(name);
            }
        }
    }

    /// The env file that secrets are edited in: the last one that compose reads wins, but a stack with one has no choice.
    pub fn env_file(&self) -> &Path {
        &self.compose.env_files[0]
    }

    /// The secrets among these that have a key in the env file.
    pub(crate) fn in_env(&self, names: &[String]) -> Vec<String> {
        let mut names = names.to_vec();
        names.retain(|name| self.secrets[name].env_key().is_some());
        names
    }

    /// The secrets that a list of secret and group names means, in the profile's order, each once.
    ///
    /// The error is the first name that is neither.
    pub fn select(&self, names: &[String]) -> Result<Vec<String>, String> {
        let mut chosen: Vec<String> = Vec::new();
        for name in names {
            let members = match (self.groups.get(name), self.secrets.contains_key(name)) {
                (Some(members), _) => members.clone(),
                (None, true) => vec![name.clone()],
                (None, false) => return Err(name.clone()),
            };
            for member in members {
                if !chosen.contains(&member) {
                    chosen.push(member);
                }
            }
        }
        Ok(chosen)
    }
}
