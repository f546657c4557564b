//! Events about enrolments that were refused, on the pod whose token it was, or else on the Office that was claimed.
//! Anybody may ask to be enrolled without end, so that events are few: the same one again only after a while, and so many
//! a minute at most, for pods and for Offices each. What is left out stands in the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use peerdist_crds::names::SERVER_FIELD_MANAGER;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, Cluster};

/// Refusals of either kind that wait to be told; further ones are left out.
const QUEUE_MAX: usize = 64;
/// The same refusal is told again after this long.
const SAME_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Events of either kind within one minute.
const EVENTS_PER_MINUTE_MAX: u32 = 20;
/// Refusals that are remembered as told.
const REMEMBERED_MAX: usize = 1024;
/// Longest note of an event.
const NOTE_CHARACTERS_MAX: usize = 900;

/// An enrolment that was refused.
#[derive(Debug, Clone)]
pub struct RefusedEnrolment {
    /// The pod, or the Office.
    pub subject: ObjectReference,
    /// The reason and what to do.
    pub note: String,
    /// The API server said whose the token is: this is no mere claim.
    is_reviewed: bool,
}

impl RefusedEnrolment {
    /// Of a pod in our namespace.
    pub fn of_pod(cluster: &Cluster, name: &str, uid: Option<&str>, note: String) -> Self {
        let subject = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(cluster.namespace.clone()),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        };
        Self { subject, note, is_reviewed: true }
    }

    /// Of somebody who claims to belong to an Office.
    pub fn of_office(name: &str, uid: &str, note: String) -> Self {
        let subject = ObjectReference {
            api_version: Some(peerdist_crds::API_VERSION.to_owned()),
            kind: Some("Office".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        Self { subject, note, is_reviewed: false }
    }
}

/// Tells refusals; clones share the bounds. What was reviewed has a queue and bounds of its own: whoever shows tokens that
/// are nobody's, without end, must not hide that somebody uses the token of another pod.
#[derive(Debug, Clone)]
pub struct RefusalTeller {
    reviewed: mpsc::Sender<RefusedEnrolment>,
    claimed: mpsc::Sender<RefusedEnrolment>,
}

impl RefusalTeller {
    /// Starts to tell, until the last of its clones is gone.
    pub fn start(cluster: Cluster) -> Self {
        let (reviewed, of_pods) = mpsc::channel(QUEUE_MAX);
        let (claimed, of_offices) = mpsc::channel(QUEUE_MAX);
        for waiting in [of_pods, of_offices] {
            tokio::spawn(tell_all(cluster.clone(), waiting));
        }
        Self { reviewed, claimed }
    }

    /// Tells one if there is room.
    pub fn tell(&self, refused: RefusedEnrolment) {
        let queue = if refused.is_reviewed { &self.reviewed } else { &self.claimed };
        // The log has said it already.
        let _ = queue.try_send(refused);
    }
}

async fn tell_all(cluster: Cluster, mut waiting: mpsc::Receiver<RefusedEnrolment>) {
    let reporter = Reporter { controller: SERVER_FIELD_MANAGER.to_owned(), instance: None };
    let mut bounds = Bounds::new(Instant::now());
    while let Some(refused) = waiting.recv().await {
        if bounds.admit(&refused, Instant::now()) {
            // A recorder counts what it is given again for an object and a reason, whatever the note says, and shows the
            // first note alone. What was told already does not come here.
            publish(&Recorder::new(cluster.client.clone(), reporter.clone()), refused).await;
        }
    }
}

async fn publish(recorder: &Recorder, refused: RefusedEnrolment) {
    let event = Event {
        type_: EventType::Warning,
        reason: "EnrolmentRefused".to_owned(),
        note: Some(refused.note.chars().take(NOTE_CHARACTERS_MAX).collect()),
        action: "Enrol".to_owned(),
        secondary: None,
    };
    match timeout(ANSWER_TIMEOUT, recorder.publish(&event, &refused.subject)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the event of a refused enrolment cannot be written"),
        Err(_) => tracing::warn!("the event of a refused enrolment cannot be written: no answer"),
    }
}

/// What was told when.
struct Bounds {
    told: BTreeMap<(Option<String>, String), Instant>,
    minute: Instant,
    in_minute: u32,
}

impl Bounds {
    fn new(now: Instant) -> Self {
        Self { told: BTreeMap::new(), minute: now, in_minute: 0 }
    }

    fn admit(&mut self, refused: &RefusedEnrolment, now: Instant) -> bool {
        if now >= self.minute + Duration::from_secs(60) {
            (self.minute, self.in_minute) = (now, 0);
        }
        self.told.retain(|_, at| now < *at + SAME_AGAIN_AFTER);
        let key = (refused.subject.name.clone(), refused.note.clone());
        let bounded = self.in_minute >= EVENTS_PER_MINUTE_MAX || self.told.len() >= REMEMBERED_MAX;
        if bounded || self.told.contains_key(&key) {
            return false;
        }
        self.told.insert(key, now);
        self.in_minute += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_few_however_often_somebody_asks() {
        let begin = Instant::now();
        let mut bounds = Bounds::new(begin);
        let refused = |note: &str| RefusedEnrolment::of_office("store", "u", note.to_owned());
        let second = |second: u64| begin + Duration::from_secs(second);
        let same = (0..1200).filter(|&at| bounds.admit(&refused("token: no"), second(at))).count();
        assert_eq!(same, 2, "once in ten minutes");
        let many = (0..1000).filter(|at| bounds.admit(&refused(&format!("{at}")), second(1261))).count();
        assert_eq!(many, EVENTS_PER_MINUTE_MAX as usize);
        assert!(bounds.admit(&refused("later"), second(1400)));
    }

    #[test]
    fn claims_without_end_leave_room_for_what_was_reviewed() {
        let (reviewed, mut of_pods) = mpsc::channel(QUEUE_MAX);
        let (claimed, mut of_offices) = mpsc::channel(QUEUE_MAX);
        let teller = RefusalTeller { reviewed, claimed };
        let claim = |note: String| RefusedEnrolment::of_office("store", "u", note);
        (0..=QUEUE_MAX).for_each(|at| teller.tell(claim(at.to_string())));
        teller.tell(RefusedEnrolment { is_reviewed: true, ..claim("the token of another pod".to_owned()) });
        assert_eq!(of_pods.try_recv().unwrap().note, "the token of another pod");
        assert!(of_pods.try_recv().is_err());
        assert_eq!(std::iter::from_fn(|| of_offices.try_recv().ok()).count(), QUEUE_MAX);
    }
}
