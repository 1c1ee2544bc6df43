//! The application as its users reach it, set up from the profile.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use keyroll_journal::{RotationId, Writer};
use keyroll_providers::http::{
    Answer, Carry, Client, ClientError, LoginAnswer, LoginSpec, PageAnswer, PageCheck, PageSpec,
    RefreshSpec, Refusals, SendRefresh, Tls, TokenAt, Tokens, WrongLoginBudget,
};
use keyroll_secret::{Format, Secret};

use crate::profile::{HttpSpec, LimitSpec, TokenSpec};

/// From this limit on a rotation that succeeds leaves a login over: preflight and verification each have one refused, and
/// each right login may turn out wrong.
const KEEPS_ONE_BACK: u32 = 5;

/// Where wrong logins are counted.
#[derive(Debug)]
struct Ledger {
    writer: Arc<Writer>,
    rotation: RotationId,
    last: AtomicU32,
}

/// Checks against the running application.
#[derive(Debug)]
pub(crate) struct Panel {
    client: Client,
    health: String,
    login: Option<LoginSpec>,
    refresh: Option<RefreshSpec>,
    pages: Vec<PageSpec>,
    budget: WrongLoginBudget,
    wrong_limit: u32,
    /// Where the count of wrong logins is written down before each login, once a rotation has begun.
    ledger: OnceLock<Ledger>,
    /// Set when the rotation goes back: from then on the login that was kept back may be used.
    going_back: AtomicBool,
    /// Why the last login was neither accepted nor refused.
    last_odd_answer: Mutex<Option<String>>,
}

/// A check that did not say yes or no, or said the wrong one.
#[derive(Debug, Clone)]
pub(crate) enum Finding {
    /// Looked at, and not as it should be.
    Wrong(String),
    /// A value or a session that must be dead is accepted. Nothing excuses it.
    Alive(String),
    /// Could not be looked at.
    Unknown(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wrong(text) | Self::Alive(text) => f.write_str(text),
            Self::Unknown(text) => write!(f, "could not look: {text}"),
        }
    }
}

fn token_at(spec: &TokenSpec) -> TokenAt {
    match spec {
        TokenSpec::Json(pointer) => TokenAt::Json(pointer.clone()),
        TokenSpec::Cookie { cookie } => TokenAt::Cookie(cookie.clone()),
    }
}

impl Panel {
    pub(crate) fn new(spec: &HttpSpec, limits: LimitSpec) -> Result<Self, ClientError> {
        let tls = Tls {
            ca_file: spec.ca_file.clone(),
            connect_to: spec.connect_to,
            pins: vec![],
        };
        let client = Client::new(
            &spec.base_url,
            &tls,
            Duration::from_secs(limits.request_seconds),
        )?;
        let refused = Refusals::new(spec.refused.iter().copied()).unwrap_or_default();
        let login = spec.login.as_ref().map(|l| LoginSpec {
            path: l.path.clone(),
            email_field: l.email_field.clone(),
            password_field: l.password_field.clone(),
            access: token_at(&l.access_token),
            refresh: l.refresh_token.as_ref().map(token_at),
            refused: refused.clone(),
        });
        let refresh = spec.refresh.as_ref().map(|r| RefreshSpec {
            path: r.path.clone(),
            send: match (&r.token_field, &r.token_cookie) {
                (Some(field), _) => SendRefresh::JsonField(field.clone()),
                (None, Some(cookie)) => SendRefresh::Cookie(cookie.clone()),
                (None, None) => SendRefresh::Bearer,
            },
            access: token_at(&r.access_token),
            refresh: r.refresh_token.as_ref().map(token_at),
            refused: refused.clone(),
        });
        let pages = spec
            .pages
            .iter()
            .map(|path| PageSpec {
                path: path.clone(),
                carry: spec
                    .session_cookie
                    .clone()
                    .map_or(Carry::Bearer, Carry::Cookie),
                refused: refused.clone(),
                login_path: spec.login_page.clone(),
            })
            .collect();
        let wrong_limit = spec.login.as_ref().map_or(0, |l| l.wrong_limit);
        let budget = WrongLoginBudget::new(wrong_limit, 0);
        Ok(Self {
            client,
            health: spec.health.clone(),
            login,
            refresh,
            pages,
            budget,
            wrong_limit,
            ledger: OnceLock::new(),
            going_back: AtomicBool::new(false),
            last_odd_answer: Mutex::default(),
        })
    }

    /// From here on the count of wrong logins is kept with the rotation, so that a run that goes on with it counts on.
    pub(crate) fn counts_in(
        &self,
        writer: Arc<Writer>,
        rotation: RotationId,
    ) -> Result<(), String> {
        let spent = writer.wrong_logins(&rotation).map_err(|e| e.to_string())?;
        self.budget.at_least(spent);
        let last = AtomicU32::new(spent);
        let _ = self.ledger.set(Ledger {
            writer,
            rotation,
            last,
        });
        Ok(())
    }

    fn note(&self, spent: u32) -> Result<(), Finding> {
        match self.ledger.get() {
            Some(ledger) if ledger.last.swap(spent, Ordering::SeqCst) != spent => ledger
                .writer
                .note_wrong_logins(&ledger.rotation, spent)
                .map_err(|e| Finding::Unknown(format!("the count of wrong logins: {e}"))),
            _ => Ok(()),
        }
    }

    /// For requests of another kind, to the same place.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The port of the base URL.
    pub(crate) fn port(&self) -> u16 {
        self.client.port()
    }

    pub(crate) fn has_login(&self) -> bool {
        self.login.is_some()
    }

    pub(crate) fn has_refresh(&self) -> bool {
        self.refresh.is_some()
    }

    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The status of the health path.
    pub(crate) async fn health(&self) -> Result<u16, Finding> {
        match self.client.health(&self.health).await {
            Answer::Status { status, .. } => Ok(status),
            Answer::Unknown(why) => Err(Finding::Unknown(format!("{}: {why}", self.health))),
        }
    }

    /// Plain liveness; the one check without a negative control.
    pub(crate) async fn healthy(&self) -> Result<(), Finding> {
        match self.health().await? {
            200..300 => Ok(()),
            status => Err(Finding::Wrong(format!("{} answers {status}", self.health))),
        }
    }

    /// How many more logins may go wrong before the application could lock the account.
    fn logins_left(&self) -> u32 {
        let most = self.wrong_limit.saturating_sub(1);
        most.saturating_sub(self.budget.spent())
    }

    /// Whether logins have gone wrong in a row, or may have, and none has gone right since.
    pub(crate) fn has_wrong_logins(&self) -> bool {
        self.budget.spent() > 0
    }

    /// From here on the rotation goes back, and may use the login that was kept back for showing that the old set works.
    pub(crate) fn goes_back(&self) {
        self.going_back.store(true, Ordering::SeqCst);
    }

    /// Whether a login that must be refused can be tried, and a right one after it.
    pub(crate) fn can_be_refused_once_more(&self) -> bool {
        self.logins_left() >= 2
    }

    async fn try_login(&self, email: &str, password: &Secret) -> Result<LoginAnswer, Finding> {
        let login = self
            .login
            .as_ref()
            .ok_or_else(|| Finding::Unknown("the profile has no [http.login]".into()))?;
        // Checks that fail on the way there use up logins. One is kept back for the way back: a rotation that cannot show its
        // old set is stuck.
        let kept_back = u32::from(self.wrong_limit >= KEEPS_ONE_BACK);
        if !self.going_back.load(Ordering::SeqCst) && self.logins_left() <= kept_back {
            return Err(self.spent(&format!(
                "{} logins have gone wrong in this rotation and the panel locks the account at {}; one more is kept for showing that the old set is back",
                self.budget.spent(),
                self.wrong_limit
            )));
        }
        // It may turn out wrong, and this process may end before that is known.
        self.note(self.budget.spent() + 1)?;
        let answer = self
            .client
            .login(login, email, password, &self.budget)
            .await
            .map_err(|spent| self.spent(&spent.to_string()))?;
        self.note(self.budget.spent())?;
        if let LoginAnswer::Unknown(why) = &answer {
            *self.odd_answer() = Some(why.to_string());
        }
        Ok(answer)
    }

    fn odd_answer(&self) -> MutexGuard<'_, Option<String>> {
        self.last_odd_answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// No further login is tried; what was wrong with the last one is the reason that an operator can do something about.
    fn spent(&self, why: &str) -> Finding {
        match self.odd_answer().as_ref() {
            Some(odd) => Finding::Unknown(format!("login: {odd}; {why}")),
            None => Finding::Unknown(why.to_owned()),
        }
    }

    /// Logs in; a refusal is `Wrong`.
    pub(crate) async fn log_in(&self, email: &str, password: &Secret) -> Result<Tokens, Finding> {
        match self.try_login(email, password).await? {
            LoginAnswer::Accepted(tokens) => Ok(tokens),
            LoginAnswer::Refused(status) => Err(Finding::Wrong(format!(
                "the login of {email} is refused ({status})"
            ))),
            LoginAnswer::Unknown(why) => Err(Finding::Unknown(format!("login of {email}: {why}"))),
        }
    }

    /// Shows that this password does not log in; counts against the limit of wrong logins.
    pub(crate) async fn refuses_login(
        &self,
        email: &str,
        password: &Secret,
    ) -> Result<(), Finding> {
        match self.try_login(email, password).await? {
            LoginAnswer::Refused(_) => Ok(()),
            LoginAnswer::Accepted(_) => Err(Finding::Alive(format!(
                "a password that must be dead logs {email} in"
            ))),
            LoginAnswer::Unknown(why) => Err(Finding::Unknown(format!("login of {email}: {why}"))),
        }
    }

    /// The negative control of logins: a password just made, which nobody can have, is refused.
    pub(crate) async fn login_can_fail(&self, email: &str) -> Result<(), Finding> {
        let wrong = Format::default()
            .generate()
            .map_err(|e| Finding::Unknown(e.to_string()))?;
        match self.refuses_login(email, &wrong).await {
            Err(Finding::Alive(_)) => Err(Finding::Wrong(format!(
                "a wrong password logs {email} in: no login proves anything here"
            ))),
            other => other,
        }
    }

    /// Every page is served to this session.
    pub(crate) async fn pages_open(&self, access: &Secret) -> Result<(), Finding> {
        self.every_page(Some(access), true).await
    }

    /// Every page is refused to this session, or to nobody at all (`None`).
    pub(crate) async fn pages_refuse(&self, access: Option<&Secret>) -> Result<(), Finding> {
        self.every_page(access, false).await
    }

    async fn every_page(&self, access: Option<&Secret>, open: bool) -> Result<(), Finding> {
        let answers = futures_util::future::join_all(self.pages.iter().map(|page| async {
            match (self.client.page(page, access).await, open) {
                (PageAnswer::Served(_), true) | (PageAnswer::Refused(_), false) => Ok(()),
                (PageAnswer::Served(status), false) => Err(Finding::Alive(format!(
                    "{} is served ({status}) to a session that must be dead",
                    page.path
                ))),
                (PageAnswer::Refused(status), true) => Err(Finding::Wrong(format!(
                    "{} refuses a live session ({status})",
                    page.path
                ))),
                (PageAnswer::Unknown(why), _) => {
                    Err(Finding::Unknown(format!("{}: {why}", page.path)))
                }
            }
        }))
        .await;
        answers.into_iter().collect()
    }

    /// The negative control of pages: without a session each is refused.
    pub(crate) async fn pages_can_refuse(&self) -> Result<(), Finding> {
        for page in &self.pages {
            match self.client.page_proves_sessions(page).await {
                PageCheck::Proves => {}
                PageCheck::Void => {
                    return Err(Finding::Wrong(format!(
                        "{} is served without a session: it proves nothing; name a path in http.pages that needs one",
                        page.path
                    )));
                }
                PageCheck::Unknown(why) => {
                    return Err(Finding::Unknown(format!("{}: {why}", page.path)));
                }
            }
        }
        Ok(())
    }

    /// Whether a refresh token is accepted; with the next one where the application replaces it.
    pub(crate) async fn refresh(&self, token: &Secret) -> Result<Option<Secret>, Finding> {
        match self.try_refresh(token).await? {
            LoginAnswer::Accepted(tokens) => Ok(tokens.refresh),
            LoginAnswer::Refused(status) => Err(Finding::Wrong(format!(
                "a live refresh token is refused ({status})"
            ))),
            LoginAnswer::Unknown(why) => Err(Finding::Unknown(format!("refresh: {why}"))),
        }
    }

    /// Shows that a refresh token is refused.
    pub(crate) async fn refuses_refresh(&self, token: &Secret) -> Result<(), Finding> {
        match self.try_refresh(token).await? {
            LoginAnswer::Refused(_) => Ok(()),
            LoginAnswer::Accepted(_) => Err(Finding::Alive(
                "a refresh token that must be dead is accepted".into(),
            )),
            LoginAnswer::Unknown(why) => Err(Finding::Unknown(format!("refresh: {why}"))),
        }
    }

    async fn try_refresh(&self, token: &Secret) -> Result<LoginAnswer, Finding> {
        let spec = self
            .refresh
            .as_ref()
            .ok_or_else(|| Finding::Unknown("the profile has no [http.refresh]".into()))?;
        Ok(self.client.refresh(spec, token).await)
    }
}

impl From<Finding> for keyroll_saga::ConfirmError {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Wrong(text) | Finding::Alive(text) => Self::Refuted(text),
            Finding::Unknown(text) => Self::Unknown(text),
        }
    }
}
