//! Orders one certificate: account, order, proofs, request, chain, file.
//!
//! In: a [`Job`]. Out: the file of the certificate replaced, or the reason why not; the old file then stays. Source:
//! RFC 8555 §7.1 (the steps), §7.3, §7.4, §7.5.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use parking_lot::Mutex;

use super::reason::{Failure, said, short, told};
use crate::acme::{Client, Folder, Lock, Proof, Series, fits, judge, pause, request};
use crate::config::{Acme, Challenge};
use crate::control::file_thread::on_file_thread;
use crate::credentials::{Issued, external_key, unix_now, whole};

/// Deadline of a whole order, and what each name adds to it: some ten requests. A lock counts longer.
const DEADLINE: Duration = Duration::from_secs(180);
const DEADLINE_OF_NAME: Duration = Duration::from_secs(2);
/// Pause until the next look while another order registers the account.
const REGISTERS: Duration = Duration::from_millis(500);
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
    /// The certificate in the file when the order became due.
    pub seen: Option<Issued>,
    /// Its state folder.
    pub folder: Folder,
    /// Folder of the configuration, below which its paths are.
    pub dir: PathBuf,
    /// How long an open challenge waits before the authority is told, so that each edge of the folder knows it.
    pub spread: Duration,
    /// Failures since the last success, as far as this edge knows.
    pub failures: u32,
    /// Whether a reload asks for it, so that the pause after a failure is cut.
    pub hurry: bool,
    /// Challenges that this order has opened.
    pub opened: Mutex<Vec<Proof>>,
}

impl Job {
    /// Returns the failures in a row with one more, after those in `before`.
    fn failed(&self, why: String, before: &Series) -> Series {
        let failures = before.failures.saturating_add(1);
        let until = self.seen.as_ref().map_or(0, |one| one.until);
        let left = u64::try_from(until.saturating_sub(unix_now())).unwrap_or_default();
        let pause = pause(failures, fastrand::f64(), Duration::from_secs(left));
        Series {
            failures,
            pause_s: pause.as_secs(),
            hurried: before.hurried || self.hurry,
            why,
        }
    }

    /// Returns the failures in a row with one more of which the folder does not know.
    fn failed_here(&self, why: String) -> Series {
        let before = Series {
            failures: self.failures,
            ..Series::default()
        };
        self.failed(why, &before)
    }
}

/// The result of a job that did not fail.
pub enum Outcome {
    /// The certificate is in its file; `true`: another edge got it.
    Got(Issued, bool),
    /// Another process orders it.
    Busy,
    /// An order failed, here or elsewhere, and the pause after it lasts so much longer.
    Resting(Series, Duration),
}

/// Orders the certificate of `job`, unless another edge does it, has done it, or has failed just now.
///
/// Errors: the failures in a row, with the reason of this one.
pub async fn run(job: Arc<Job>) -> Result<Outcome, Series> {
    let lock = on_files(&job, |job| {
        job.folder.make()?;
        job.folder.lock(&job.file)
    });
    let lock = match lock.await {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(Outcome::Busy),
        Err(why) => return Err(job.failed_here(why)),
    };
    let names = u32::try_from(job.acme.domains.len()).unwrap_or(u32::MAX);
    let deadline = DEADLINE + DEADLINE_OF_NAME.saturating_mul(names);
    let late = || format!("the order took longer than {} s", deadline.as_secs());
    let ordered = tokio::time::timeout(deadline, under_lock(&job)).await;
    let ordered = ordered.map_err(|_| late()).and_then(|result| result);
    end(&job, lock, ordered).await
}

/// Closes the challenges, keeps what came of the order for the other edges, and gives the lock back.
async fn end(
    job: &Arc<Job>,
    lock: Lock,
    ordered: Result<Outcome, String>,
) -> Result<Outcome, Series> {
    let opened = job.opened.lock().clone();
    let ordered = ordered.map_err(|why| short(why, &opened));
    let why = ordered.as_ref().err().cloned();
    let is_got = matches!(ordered, Ok(Outcome::Got(..)));
    let done = on_files(job, move |job| {
        job.folder.close(&opened);
        let before = job.folder.series(&job.file).ok().flatten();
        let before = before.map_or_else(Series::default, |(series, _)| series);
        let series = why.map(|why| job.failed(why, &before));
        let kept = match series.is_some() || is_got {
            true => job.folder.keep_series(&job.file, series.as_ref()),
            false => Ok(()),
        };
        Lock::release(lock);
        kept.map(|()| series)
    });
    match (ordered, done.await) {
        (Ok(outcome), done) => {
            if let Err(why) = done {
                log::warn!("ACME: cannot clean up after an order: {why}");
            }
            Ok(outcome)
        }
        (Err(_), Ok(Some(series))) => Err(series),
        (Err(why), _) => Err(job.failed_here(why)),
    }
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
    let there = on_files(job, |job| Issued::read(&job.file)).await?;
    let is_news =
        |one: &Issued| Some(one) != job.seen.as_ref() && fits(one, &names, job.acme.url());
    if let Some(issued) = there.filter(is_news) {
        return Ok(Outcome::Got(issued, true));
    }
    let failed = on_files(job, |job| job.folder.series(&job.file)).await?;
    if let Some((series, age)) = failed {
        let rest = series.rest(age, job.hurry);
        if !rest.is_zero() {
            return Ok(Outcome::Resting(series, rest));
        }
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
    let text = match known {
        Some(text) => text,
        None => {
            let lock = loop {
                let lock = on_files(job, |job| job.folder.lock_account(job.acme.url()));
                match lock.await? {
                    Some(lock) => break lock,
                    None => tokio::time::sleep(REGISTERS).await,
                }
            };
            let text = register(job, http).await;
            let release = |_: &Job| {
                Lock::release(lock);
                Ok(())
            };
            on_files(job, release).await?;
            text?
        }
    };
    let http = on_files(job, client).await?;
    let credentials = serde_json::from_str(&text);
    let credentials = credentials.map_err(|e| format!("the account's file: {e}"))?;
    let account = Account::builder_with_http(http).from_credentials(credentials);
    account.await.map(|a| (a, text)).map_err(|e| said(&e))
}

/// Registers an account, unless another order has done it meanwhile. Returns the content of its file.
async fn register(job: &Arc<Job>, http: Box<Client>) -> Result<String, String> {
    let known = on_files(job, |job| job.folder.account(job.acme.url()));
    if let Some(text) = known.await? {
        return Ok(text);
    }
    let contact = job.acme.email.iter().map(|e| format!("mailto:{e}"));
    let contact: Vec<String> = contact.collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let account = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let url = job.acme.url().to_owned();
    let external = on_files(job, external).await?;
    let builder = Account::builder_with_http(http);
    let made = builder.create(&account, url, external.as_ref()).await;
    let (_, credentials) = made.map_err(|e| said(&e))?;
    let text = serde_json::to_string(&credentials).map_err(|e| e.to_string())?;
    let keep = move |job: &Job| job.folder.keep_account(job.acme.url(), &text);
    let text = on_files(job, keep).await?;
    log::info!("ACME: registered an account at {}", job.acme.url());
    Ok(text)
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
    job.opened.lock().clone_from(&proofs);
    on_files(job, move |job| job.folder.open(&proofs)).await?;
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

#[cfg(test)]
mod tests;
