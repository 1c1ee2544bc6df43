//! What a well-formed profile can still get wrong.

use super::integration::AlertSpec;
use super::spec::{Profile, SecretKind, SecretSpec};

/// The first problem: the key it is about, and what was expected.
pub(super) fn problem(profile: &Profile) -> Option<(String, String)> {
    let absolute = if profile.root.is_absolute() {
        None
    } else {
        Some(("root".into(), "expected an absolute path".into()))
    };
    absolute
        .or_else(|| name(profile))
        .or_else(|| files(profile))
        .or_else(|| secrets(profile))
        .or_else(|| references(profile))
        .or_else(|| http(profile))
        .or_else(|| alerts(profile))
}

fn alerts(profile: &Profile) -> Option<(String, String)> {
    for (name, alert) in &profile.alerts {
        if let AlertSpec::Mail {
            user,
            password_file,
            to,
            ..
        } = alert
        {
            if user.is_some() != password_file.is_some() {
                let what = "expected `user` and `password_file` together, or neither";
                return Some((format!("alerts.{name}.user"), what.into()));
            }
            if to.is_empty() {
                return Some((
                    format!("alerts.{name}.to"),
                    "expected at least one address".into(),
                ));
            }
        }
    }
    None
}

fn name(profile: &Profile) -> Option<(String, String)> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !profile.name.is_empty() && profile.name.chars().all(fine) {
        return None;
    }
    Some(("name".into(), "expected letters, digits, - and _".into()))
}

fn files(profile: &Profile) -> Option<(String, String)> {
    if profile.compose.files.is_empty() {
        return Some((
            "compose.files".into(),
            "expected at least one compose file".into(),
        ));
    }
    if profile.compose.env_files.len() != 1 {
        return Some((
            "compose.env_files".into(),
            "expected exactly one file; several --env-file are not supported yet".into(),
        ));
    }
    None
}

fn secrets(profile: &Profile) -> Option<(String, String)> {
    for (name, secret) in &profile.secrets {
        if let Err(error) = secret.format.resolve() {
            return Some((format!("secrets.{name}.format"), error.to_string()));
        }
        let missing = match secret.kind {
            SecretKind::AccessTokenKey | SecretKind::RefreshTokenKey if profile.http.is_none() => {
                "http"
            }
            SecretKind::PostgresPassword if profile.database.is_none() => "database",
            SecretKind::AdminPassword if profile.admin.is_none() => "admin",
            _ if secret.setting.is_some() && profile.settings.is_none() => "settings",
            _ if secret.setting.is_some() && profile.database.is_none() => "database",
            _ => continue,
        };
        return Some((
            format!("secrets.{name}.kind"),
            format!("a secret of this kind needs a [{missing}] section to be applied and proven"),
        ));
    }
    if let Some(problem) = profile.secrets.iter().find_map(|(n, s)| integration(n, s)) {
        return Some(problem);
    }
    // Each kind is applied and proven in one place; a second secret of it would be neither.
    for (name, secret) in &profile.secrets {
        let twin = profile
            .secrets
            .iter()
            .find(|(other, s)| s.kind == secret.kind && *other < name);
        if let (Some((twin, _)), false) = (
            twin,
            secret.kind == SecretKind::Environment || secret.kind.comes_from_outside(),
        ) {
            return Some((
                format!("secrets.{name}.kind"),
                format!(
                    "{twin} is of this kind already; expected one of each, and any number of kind environment and of those that providers make"
                ),
            ));
        }
    }
    for (place, recipients) in [
        ("backup", &profile.backup.recipients),
        ("summary", &profile.summary.recipients),
    ] {
        for (i, recipient) in recipients.iter().enumerate() {
            if let Err(error) = keyroll_secret::Recipients::operators([recipient.as_str()]) {
                return Some((format!("{place}.recipients[{i}]"), error.to_string()));
            }
        }
    }
    if profile
        .http
        .as_ref()
        .and_then(|h| h.login.as_ref())
        .is_some_and(|l| l.wrong_limit < 4)
    {
        return Some((
            "http.login.wrong_limit".into(),
            "expected at least 4: a rotation shows twice that a wrong login is refused, and must stay under the limit".into(),
        ));
    }
    for (group, members) in &profile.groups {
        if profile.secrets.contains_key(group) {
            return Some((
                format!("groups.{group}"),
                "a secret has the same name; expected another one".into(),
            ));
        }
        for (i, member) in members.iter().enumerate() {
            if !profile.secrets.contains_key(member) {
                return Some((
                    format!("groups.{group}[{i}]"),
                    format!("no secret {member:?} in [secrets]"),
                ));
            }
        }
    }
    None
}

/// What is wrong with a secret that stands in a setting, or that a provider makes.
fn integration(name: &str, secret: &SecretSpec) -> Option<(String, String)> {
    let problem =
        |key: &str, expected: &str| Some((format!("secrets.{name}.{key}"), expected.to_owned()));
    let outside = secret.kind.comes_from_outside();
    if secret.setting.is_some() && !outside {
        return problem(
            "setting",
            "a secret of this kind is not kept in a setting; expected `key`",
        );
    }
    if secret.previous.is_some() && secret.previous == secret.setting {
        return problem(
            "previous",
            "expected another setting than the one that holds the secret",
        );
    }
    if secret.previous.is_some() && secret.setting.is_none() {
        return problem(
            "previous",
            "expected a `setting` that it is the previous value of",
        );
    }
    let api = secret.api.as_ref();
    if secret.kind == SecretKind::ProxmoxToken && api.is_none_or(|a| a.base_url.is_none()) {
        return problem(
            "api.base_url",
            "expected the node's address, such as https://node.example:8006",
        );
    }
    let owned = matches!(
        secret.kind,
        SecretKind::ProxmoxToken | SecretKind::FlutterwaveClientSecret
    );
    if owned && api.is_none_or(|a| a.id.is_none()) {
        return problem(
            "api.id",
            "expected whose secret it is: the client's id, or the token's full id (user@realm!name)",
        );
    }
    if let Some(make) = &secret.make {
        if secret.kind != SecretKind::ProxmoxToken
            || secret.setting.is_none()
            || secret.previous.is_some()
        {
            return problem(
                "make",
                "keyroll makes Proxmox tokens alone; expected kind proxmox-token, a `setting`, and no `previous`",
            );
        }
        let id = api.and_then(|a| a.id.as_deref()).unwrap_or_default();
        let user = |full: &str| full.split_once('!').map(|(user, _)| user.to_owned());
        match (user(&make.manager), user(id)) {
            (None, _) => {
                return problem(
                    "make.manager",
                    "expected a token's full id (user@realm!name)",
                );
            }
            (manager, own) if manager == own => {
                return problem(
                    "make.manager",
                    "expected a token of another user: none can manage its own user's tokens",
                );
            }
            _ => {}
        }
    }
    for (i, text) in api
        .map(|a| a.fingerprints.as_slice())
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        if let Err(error) = text.parse::<keyroll_providers::http::Fingerprint>() {
            return problem(&format!("api.fingerprints[{i}]"), &error.to_string());
        }
    }
    let path = secret.webhook.as_ref().map(|w| w.path.as_str());
    if path.is_some_and(|path| !path.starts_with('/')) {
        return problem("webhook.path", "expected a path that starts with /");
    }
    None
}

fn references(profile: &Profile) -> Option<(String, String)> {
    let kind = |name: &str| profile.secrets.get(name).map(|s| s.kind);
    if let Some(database) = &profile.database
        && kind(&database.password) != Some(SecretKind::PostgresPassword)
    {
        return Some((
            "database.password".into(),
            "expected the name of a secret of kind postgres-password".into(),
        ));
    }
    let admin = profile.admin.as_ref()?;
    if kind(&admin.password) != Some(SecretKind::AdminPassword) {
        return Some((
            "admin.password".into(),
            "expected the name of a secret of kind admin-password".into(),
        ));
    }
    if admin.seed.command.is_empty() {
        return Some((
            "admin.seed.command".into(),
            "expected a command and its arguments".into(),
        ));
    }
    if profile.http.as_ref().is_none_or(|h| h.login.is_none()) {
        return Some((
            "admin".into(),
            "expected an [http.login] section: without it no password can be proven".into(),
        ));
    }
    if profile.database.is_none() {
        return Some((
            "admin".into(),
            "expected a [database] section: the saved hash is kept from there".into(),
        ));
    }
    None
}

fn http(profile: &Profile) -> Option<(String, String)> {
    let http = profile.http.as_ref()?;
    let scheme = http.base_url.starts_with("http://") || http.base_url.starts_with("https://");
    if !scheme || http.base_url.ends_with('/') {
        return Some((
            "http.base_url".into(),
            "expected http:// or https://, host and port without a slash at the end".into(),
        ));
    }
    for (i, status) in http.refused.iter().enumerate() {
        if keyroll_providers::http::Refusals::new([*status]).is_err() {
            return Some((format!("http.refused[{i}]"), "expected a 4xx status that means a refusal; 408, 423, 425 and 429 say that nothing was looked at".into()));
        }
    }
    let paths = [("http.health".to_owned(), &http.health)]
        .into_iter()
        .chain(
            http.pages
                .iter()
                .enumerate()
                .map(|(i, p)| (format!("http.pages[{i}]"), p)),
        )
        .chain(
            http.login
                .iter()
                .map(|l| ("http.login.path".to_owned(), &l.path)),
        )
        .chain(
            http.refresh
                .iter()
                .map(|r| ("http.refresh.path".to_owned(), &r.path)),
        );
    for (key, path) in paths {
        if !path.starts_with('/') {
            return Some((key, "expected a path that starts with /".into()));
        }
    }
    None
}
