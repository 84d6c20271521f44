//! Task `certificates`: gets certificates for the domains of managed apps, and renews them in time.
//!
//! What is due follows from the store alone, so that a control role that died in the middle begins again. A failure is
//! told in the app's log and tried again later and later; one domain's failure is no other's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use dozen_api::{
    clock::{Micros, rfc3339_seconds},
    logs::Source,
    routes::Challenge,
};
use dozen_domain::ids::AppId;
use tokio::{sync::Semaphore, task::JoinSet};

use super::driver::{Scope, Task, chain};
use crate::{
    Context,
    acme::{Authority, Error, Publish},
    ops,
    routes_feed::Feed,
    store::managed::{Managed, Progress},
};

/// Orders that are under way at the same time.
const ABREAST: usize = 4;
/// Longest wait for the router to know an answer.
const PUBLISHED: Duration = Duration::from_secs(5);

/// Answers that the router is to give to certificate authorities, by app.
pub type Challenges = std::sync::Mutex<BTreeMap<AppId, Vec<Challenge>>>;

/// The task.
pub struct Certificates(Arc<Work>);

struct Work {
    context: Context,
    feed: Arc<Feed>,
}

impl Certificates {
    /// Tells the router what to answer through this feed.
    pub fn new(context: Context, feed: Arc<Feed>) -> Self {
        Self(Arc::new(Work { context, feed }))
    }
}

/// The router's answers for one app.
struct Answers<'a>(&'a Work, AppId);

#[async_trait]
impl Publish for Answers<'_> {
    async fn publish(&self, challenge: Challenge) {
        let Self(work, app) = self;
        ops::managed::challenges(&work.context).entry(*app).or_default().push(challenge);
        work.tell(*app).await;
    }
}

impl Work {
    async fn one(&self, authority: &Authority, managed: &Managed) -> ops::Result<bool> {
        let context = &self.context;
        ops::managed::begin(context, managed).await?;
        let got = authority.certificate(&managed.hostname, &Answers(self, managed.app)).await;
        self.withdraw(managed).await;
        let kept = match got {
            Ok(issued) => ops::managed::issued(context, managed, &issued).await?,
            Err(error) => Err(error),
        };
        match kept {
            Ok(until) => {
                let until = rfc3339_seconds(until);
                let text = format!("Certificate for {} issued, valid until {until}", managed.hostname);
                context.log(managed.app, Source::Heroku, "acm", text);
                Ok(true)
            }
            Err(error) => self.failed(managed, &error).await.map(|()| false),
        }
    }

    async fn failed(&self, managed: &Managed, error: &Error) -> ops::Result<()> {
        let progress = ops::managed::failed(&self.context, managed, error).await?;
        let again = rfc3339_seconds(progress.next_at);
        let text = format!("No certificate for {}: {error}. Trying again at {again}", managed.hostname);
        self.context.log(managed.app, Source::Heroku, "acm", text);
        Ok(())
    }

    async fn withdraw(&self, managed: &Managed) {
        let host = |challenge: &Challenge| match challenge {
            Challenge::Http { host, .. } | Challenge::Tls { host, .. } => *host == managed.hostname,
        };
        if let Some(challenges) = ops::managed::challenges(&self.context).get_mut(&managed.app) {
            challenges.retain(|challenge| !host(challenge));
        }
        self.tell(managed.app).await;
    }

    async fn tell(&self, app: AppId) {
        match self.feed.refresh(app).await {
            Ok(generation) => {
                if tokio::time::timeout(PUBLISHED, self.feed.published(generation)).await.is_err() {
                    tracing::warn!(%app, "the router has not taken up an answer for a certificate authority");
                }
            }
            Err(error) => tracing::error!(%app, error = %chain(&error), "cannot tell the router what to answer"),
        }
    }
}

#[async_trait]
impl Task for Certificates {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn period(&self) -> Duration {
        dozen_domain::limits::seconds(self.0.context.limits().acme_look_seconds)
    }

    async fn run(&self, scope: &Scope) -> ops::Result<String> {
        let work = &self.0;
        let mut due = ops::managed::due(&work.context, work.context.now()).await?;
        if let Scope::Apps(apps) = scope {
            due.retain(|managed| apps.contains(&managed.app));
        }
        if due.is_empty() {
            return Ok("nothing due".to_owned());
        }
        let authority = match ops::managed::authority(&work.context).await? {
            Ok(authority) => Arc::new(authority),
            Err(error) => {
                for managed in &due {
                    work.failed(managed, &error).await?;
                }
                return Ok(format!("{} domains wait for the certificate authority", due.len()));
            }
        };
        let abreast = Arc::new(Semaphore::new(ABREAST));
        let mut orders = JoinSet::new();
        for managed in due {
            let (work, authority, abreast) = (work.clone(), authority.clone(), abreast.clone());
            orders.spawn(async move {
                let _turn = abreast.acquire().await;
                work.one(&authority, &managed).await
            });
        }
        let (mut issued, mut asked) = (0, 0);
        while let Some(order) = orders.join_next().await {
            asked += 1;
            issued += u32::from(order.map_err(|error| ops::Error::platform("get a certificate", error))??);
        }
        Ok(format!("{issued} of {asked} certificates issued"))
    }
}

/// When a certificate is renewed: with `days` left, or a third of its life if that is less.
pub(crate) fn renewal(starts_at: Micros, expires_at: Micros, days: u64) -> Micros {
    let days = i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(86_400_000_000);
    expires_at - days.min((expires_at - starts_at) / 3)
}

/// The progress after a failure: later and later, and given up in words after some, though still tried.
pub(crate) fn after_failure(
    former: Option<&Progress>,
    reason: &str,
    now: Micros,
    first: u64,
    longest: u64,
) -> Progress {
    /// Failures in a row after which people are told that it will not work by itself.
    const HOPELESS: u32 = 5;
    let failures = former.map_or(0, |former| former.failures) + 1;
    let pause = first.saturating_mul(1 << (failures - 1).min(32)).min(longest.max(first));
    let status = if failures >= HOPELESS { "failed" } else { "failing" };
    let next_at = now.saturating_add(i64::try_from(pause).unwrap_or(i64::MAX).saturating_mul(1_000_000));
    Progress { status: status.to_owned(), reason: Some(reason.to_owned()), failures, next_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Micros = 86_400_000_000;

    #[test]
    fn a_certificate_is_renewed_a_month_or_a_third_of_its_life_before_its_end() {
        assert_eq!(renewal(0, 90 * DAY, 30), 60 * DAY);
        assert_eq!(renewal(0, 398 * DAY, 30), 368 * DAY);
        assert_eq!(renewal(0, 6 * DAY, 30), 4 * DAY);
    }

    #[test]
    fn failures_are_tried_again_later_and_later_and_given_up_in_words() {
        let mut progress = after_failure(None, "refused", 0, 60, 300);
        let mut seen = vec![(progress.status.clone(), progress.next_at / 1_000_000)];
        for _ in 0..5 {
            progress = after_failure(Some(&progress), "refused", 0, 60, 300);
            seen.push((progress.status.clone(), progress.next_at / 1_000_000));
        }
        let expected =
            [("failing", 60), ("failing", 120), ("failing", 240), ("failing", 300), ("failed", 300), ("failed", 300)];
        assert_eq!(seen, expected.map(|(status, at)| (status.to_owned(), at)));
    }
}
