//! The shape of what a profile says about secrets that other companies make, and that the application keeps in its settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The application's settings table: a row for each setting.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsSpec {
    /// The table.
    pub table: String,
    /// Its column with the setting's name.
    pub key_column: String,
    /// Its column with the value: of a string type, or `json` or `jsonb` holding a string.
    pub value_column: String,
    /// What the rows of this stack have in another column, where one table has those of several.
    pub scope: Option<ScopeSpec>,
    /// Its column with the time of a row's last change (`timestamp` in UTC, or `timestamptz`).
    pub updated_column: Option<String>,
}

/// A column that must hold a text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeSpec {
    /// The column.
    pub column: String,
    /// The text.
    pub value: String,
}

/// Where a provider is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSpec {
    /// Scheme, host and port; the provider's own where it is not given.
    pub base_url: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 fingerprints of certificates to trust instead of any authority.
    #[serde(default)]
    pub fingerprints: Vec<String>,
    /// Whose secret it is, where the provider wants to know: a client's id, or the full id of a Proxmox token
    /// (`user@realm!name`).
    pub id: Option<String>,
}

/// When rotations are due, and when one may be made without anybody there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    /// Days after its due date at which a secret is overdue.
    pub overdue_days: u32,
    /// When an unattended rotation may begin; at any time where it is not given.
    pub window: Option<WindowSpec>,
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self {
            overdue_days: 7,
            window: None,
        }
    }
}

/// A maintenance window of each week, in the host's time zone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Its days, `Mon` to `Sun`; every day where none is given.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins, `HH:MM`.
    pub from: jiff::civil::Time,
    /// When it ends; on the next day where that is not later.
    pub to: jiff::civil::Time,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are the days")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Where the results of unattended runs are told. What is secret of it stands in a file that root alone can read, never in the profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AlertSpec {
    /// Slack.
    Slack {
        /// The file with the incoming webhook's URL.
        url_file: PathBuf,
    },
    /// Discord.
    Discord {
        /// The file with the webhook's URL.
        url_file: PathBuf,
    },
    /// A Telegram bot.
    Telegram {
        /// The file with the bot's token.
        token_file: PathBuf,
        /// The chat's id.
        chat: String,
    },
    /// A webhook of the operator's own.
    Webhook {
        /// The file with its URL.
        url_file: PathBuf,
        /// The file with the key that signs.
        hmac_file: Option<PathBuf>,
    },
    /// Mail over SMTP.
    Mail {
        /// The server's name.
        host: String,
        /// Its port.
        port: u16,
        /// How the connection is protected.
        #[serde(default)]
        tls: MailTlsSpec,
        /// A PEM file with the authorities to trust instead of the system's.
        ca_file: Option<PathBuf>,
        /// Logs in as this user.
        user: Option<String>,
        /// The file with the user's password.
        password_file: Option<PathBuf>,
        /// Who writes.
        from: String,
        /// Who gets it.
        to: Vec<String>,
    },
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTlsSpec {
    /// TLS from the first byte, as on port 465.
    #[default]
    Implicit,
    /// STARTTLS, and no mail without it, as on port 587.
    Starttls,
    /// None: for a server on this host alone.
    None,
}

/// A Proxmox token that keyroll makes itself: a second one with the rights of the first, which is deleted when its grace window ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeSpec {
    /// The setting that holds the token's full id (`user@realm!name`): it changes together with the secret.
    pub id_setting: String,
    /// The full id of another identity's token, which may manage the user's tokens and give them rights. A token can do neither for itself.
    pub manager: String,
    /// The file with that token's value.
    pub manager_file: PathBuf,
}

/// An endpoint that takes signed events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// Its path under `http.base_url`.
    pub path: String,
    /// The type of an event that no handler acts on. Without it no event is ever sent, and less is proven.
    pub probe_event: Option<String>,
}
