//! Orders one certificate: account, order, proofs, request, chain, file.
//!
//! In: a [`Job`]. Out: the file of the certificate replaced, or the reason why not; the old file then stays. Source:
//! RFC 8555 §7.1 (the steps), §7.3, §7.4, §7.5.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use parking_lot::Mutex;

use crate::acme::{Client, Folder, Lock, Proof, fits, judge, request};
use crate::config::{Acme, Challenge};
use crate::control::file_thread::on_file_thread;
use crate::credentials::{Issued, external_key, unix_now, whole};

/// Deadline of a whole order. A lock counts longer.
const DEADLINE: Duration = Duration::from_secs(180);
/// How often the authority is asked for the result, at first and at last.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// A certificate to order.
pub struct Job {
    /// Its block of the configuration.
    pub acme: Acme,
    /// How its names are proved.
    pub challenge: Challenge,
    /// Its file.
    pub file: PathBuf,
    /// What the file said when the order was found due.
    pub seen: Option<Issued>,
    /// Its state folder.
    pub folder: Folder,
    /// Folder of the configuration, below which its paths are.
    pub dir: PathBuf,
    /// How long an open challenge waits before the authority is told, so that each edge of the folder knows it.
    pub spread: Duration,
    /// Challenges that this order has opened.
    pub opened: Mutex<Vec<Proof>>,
}

/// What came of a job that did not fail.
pub enum Outcome {
    /// The certificate is in its file; `true`: another edge got it.
    Got(Issued, bool),
    /// Another process orders it.
    Busy,
}

/// Why an order failed.
enum Failure {
    /// The authority does not take the account.
    Account(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    fn why(self) -> String {
        match self {
            Failure::Account(why) | Failure::Other(why) => why,
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Other(why)
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let refuses = |problem: &Problem| {
            let kind = problem.r#type.as_deref().unwrap_or_default();
            let kind = kind.rsplit(':').next().unwrap_or_default();
            matches!(kind, "accountDoesNotExist" | "unauthorized")
        };
        match &e {
            Error::Api(problem) if refuses(problem) => Failure::Account(said(&e)),
            _ => Failure::Other(said(&e)),
        }
    }
}

/// Orders the certificate of `job`, unless another edge does it or has done it.
///
/// Errors: the reason, for the log.
pub async fn run(job: Arc<Job>) -> Result<Outcome, String> {
    let lock = on_files(&job, |job| {
        job.folder.make()?;
        job.folder.lock(&job.file)
    });
    let Some(lock) = lock.await? else {
        return Ok(Outcome::Busy);
    };
    let late = || format!("the order took longer than {} s", DEADLINE.as_secs());
    let ordered = tokio::time::timeout(DEADLINE, under_lock(&job)).await;
    let ordered = ordered.map_err(|_| late()).and_then(|result| result);
    on_files(&job, |job| {
        job.folder.close(&job.opened.lock());
        Lock::release(lock);
        Ok(())
    })
    .await?;
    ordered
}

/// Runs `work`, which touches files, on a file thread.
async fn on_files<T: Send + 'static>(
    job: &Arc<Job>,
    work: impl FnOnce(&Job) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let job = job.clone();
    on_file_thread(move || work(&job))
        .await
        .and_then(|done| done)
}

async fn under_lock(job: &Arc<Job>) -> Result<Outcome, String> {
    let names = job.acme.names();
    let there = on_files(job, |job| Ok(Issued::read(&job.file))).await?;
    let is_news =
        |one: &Issued| Some(one) != job.seen.as_ref() && fits(one, &names, job.acme.url());
    if let Some(issued) = there.filter(is_news) {
        return Ok(Outcome::Got(issued, true));
    }
    let (account, kept) = account(job).await?;
    let issued = match order(job, &account).await {
        Err(Failure::Account(why)) => {
            log::warn!(
                "ACME: {} does not take our account: {why}; registering another one",
                job.acme.url()
            );
            let refuse = move |job: &Job| job.folder.refuse_account(job.acme.url(), &kept);
            on_files(job, refuse).await?;
            let (account, _) = self::account(job).await?;
            order(job, &account).await
        }
        result => result,
    };
    issued
        .map(|one| Outcome::Got(one, false))
        .map_err(Failure::why)
}

/// Returns our account at the authority with its file's content. Registers one if there is none yet.
async fn account(job: &Arc<Job>) -> Result<(Account, String), String> {
    let client = |job: &Job| {
        let file = job.acme.ca_file.as_ref().map(|file| job.dir.join(file));
        Client::new(file.as_deref()).map(Box::new)
    };
    let known = on_files(job, move |job| {
        Ok((client(job)?, job.folder.account(job.acme.url())?))
    });
    let (http, known) = known.await?;
    let builder = Account::builder_with_http(http);
    let text = match known {
        Some(text) => text,
        None => {
            let contact: Vec<String> = job
                .acme
                .email
                .iter()
                .map(|e| format!("mailto:{e}"))
                .collect();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            let account = NewAccount {
                contact: &contact,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let url = job.acme.url().to_owned();
            let external = on_files(job, external).await?;
            let made = builder.create(&account, url, external.as_ref()).await;
            let (_, credentials) = made.map_err(|e| said(&e))?;
            let text = serde_json::to_string(&credentials).map_err(|e| e.to_string())?;
            let keep = move |job: &Job| job.folder.keep_account(job.acme.url(), &text);
            let text = on_files(job, keep).await?;
            log::info!("ACME: registered an account at {}", job.acme.url());
            text
        }
    };
    let http = on_files(job, client).await?;
    let credentials = serde_json::from_str(&text);
    let credentials = credentials.map_err(|e| format!("the account's file: {e}"))?;
    let account = Account::builder_with_http(http).from_credentials(credentials);
    account.await.map(|a| (a, text)).map_err(|e| said(&e))
}

/// Reads the key of the external account, if the block names one.
fn external(job: &Job) -> Result<Option<ExternalAccountKey>, String> {
    let Some(account) = &job.acme.external_account else {
        return Ok(None);
    };
    let key = external_key(&job.dir.join(&account.key_file)).map_err(|e| e.to_string())?;
    Ok(Some(ExternalAccountKey::new(account.id.clone(), &key)))
}

async fn order(job: &Arc<Job>, account: &Account) -> Result<Issued, Failure> {
    let names = job.acme.names();
    let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // From here on a refusal is about a name, not about the account.
    let other = |failure: Failure| Failure::Other(failure.why());
    prove(job, &mut order).await.map_err(other)?;
    finish(job, &mut order, &names).await.map_err(other)
}

/// Proves each name that is not proved yet.
async fn prove(job: &Arc<Job>, order: &mut Order) -> Result<(), Failure> {
    let kind = match job.challenge {
        Challenge::Http => ChallengeType::Http01,
        Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
    };
    let mut proofs = Vec::new();
    let mut all = order.authorizations();
    while let Some(one) = all.next().await {
        let mut one = one?;
        match one.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => {
                let name = one.identifier().to_string();
                return Err(Failure::Other(format!("the proof of {name} is {other:?}")));
            }
        }
        let name = one.identifier().to_string();
        let Some(challenge) = one.challenge(kind.clone()) else {
            let word = job.challenge.as_str();
            return Err(Failure::Other(format!("it offers no {word} for {name}")));
        };
        proofs.push(Proof {
            token: challenge.token.clone(),
            name,
            authorization: challenge.key_authorization().as_str().to_owned(),
        });
    }
    if proofs.is_empty() {
        return Ok(());
    }
    *job.opened.lock() = proofs;
    on_files(job, |job| job.folder.open(&job.opened.lock())).await?;
    tokio::time::sleep(job.spread).await;
    let mut all = order.authorizations();
    while let Some(one) = all.next().await {
        let mut one = one?;
        if one.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = one.challenge(kind.clone())
        {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

/// Waits for the proofs, sends the request, and writes key and chain.
async fn finish(job: &Arc<Job>, order: &mut Order, names: &[String]) -> Result<Issued, Failure> {
    match order.poll_ready(&POLL).await {
        Ok(OrderStatus::Ready) => {}
        Ok(status) => return Err(unproved(order, format!("the order is {status:?}")).await),
        Err(e) => return Err(unproved(order, said(&e)).await),
    }
    let (key, csr) = request(names).map_err(|e| format!("OpenSSL makes no request: {e}"))?;
    order.finalize_csr(&csr).await?;
    let chain = order.poll_certificate(&POLL).await?;
    let pem = key.private_key_to_pem_pkcs8().map_err(|e| e.to_string())?;
    let content = whole(job.acme.url(), &String::from_utf8_lossy(&pem), &chain);
    let issued = judge(&content, &key, names, unix_now())?;
    on_files(job, move |job| job.folder.replace(&job.file, &content)).await?;
    Ok(issued)
}

/// Returns what the authority says about each name that it could not prove, else `why`.
async fn unproved(order: &mut Order, why: String) -> Failure {
    let mut reasons = Vec::new();
    let mut all = order.authorizations();
    while let Some(Ok(mut one)) = all.next().await {
        // The state is the one from before the proof.
        if one.refresh().await.is_err() {
            continue;
        }
        let name = one.identifier().to_string();
        let errors = one.challenges.iter().filter_map(|c| c.error.as_ref());
        reasons.extend(errors.map(|e| format!("{name}: {}", told(e))));
    }
    match reasons.is_empty() {
        true => Failure::Other(why),
        false => Failure::Other(reasons.join("; ")),
    }
}

/// Formats an error with the authority's own words.
fn said(e: &Error) -> String {
    match e {
        Error::Api(problem) => told(problem),
        Error::Json(e) => format!("its answer is not what RFC 8555 says: {e}"),
        e => e.to_string(),
    }
}

fn told(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.rsplit(':').next().unwrap_or_default();
    let parts = problem.subproblems.iter().map(ToString::to_string);
    let detail = problem.detail.iter().cloned().chain(parts);
    let detail: Vec<_> = detail.collect();
    // One line of the log, whatever the authority sends.
    let text = format!("{} ({kind})", detail.join("; "));
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TOLD)
        .collect()
}

/// Longest text of an authority that is logged, in characters.
const MAX_TOLD: usize = 500;
