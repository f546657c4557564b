//! Conditions as the API conventions and kstatus have them: each type once, with a reason and the generation it speaks
//! about; the time changes only with the status. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::fleet::Refusal;

/// The one condition that sums up the others.
pub const READY: &str = "Ready";
/// Whether the object is acted upon.
pub const ACCEPTED: &str = "Accepted";
/// Whether nothing will happen before somebody edits the object. kstatus calls such an object failed.
pub const STALLED: &str = "Stalled";
/// Whether the server has fetched and signed the package.
pub const INGESTED: &str = "Ingested";
/// Whether every node that should hold the package holds it.
pub const DISTRIBUTED: &str = "Distributed";
/// Whether the distribution rests because its spec says so.
pub const PAUSED: &str = "Paused";

/// Texts without their numbers that are at least as long may have been cut by whoever told them.
const NEVER_CUT_BYTES_MAX: usize = 200;
/// Longest message of a condition.
const MESSAGE_CHARACTERS_MAX: usize = 1024;

/// A condition before it has a time and a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Finding {
    /// It holds.
    pub fn yes(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status: "True", reason: reason.to_owned(), message: cut(message.into()) }
    }

    /// It does not hold.
    pub fn no(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status: "False", reason: reason.to_owned(), message: cut(message.into()) }
    }

    /// Nobody knows.
    pub fn unknown(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status: "Unknown", reason: reason.to_owned(), message: cut(message.into()) }
    }

    /// Whether it holds.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Whether it does not hold. Of what nobody knows neither is said.
    pub fn is_false(&self) -> bool {
        self.status == "False"
    }

    /// Why, in one word.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Accepted and Stalled of an object that is acted upon.
pub fn accepted() -> [Finding; 2] {
    [
        Finding::yes(ACCEPTED, "Valid", "the object is acted upon"),
        Finding::no(STALLED, "Valid", "nothing has to be edited"),
    ]
}

/// Ready, Accepted and Stalled of an object that is not acted upon, with the field at fault in their messages.
pub fn refused(refusal: &Refusal) -> [Finding; 3] {
    let Refusal { field, reason, message, stalled } = refusal;
    let message = &with_field(field, message);
    let stalled = if *stalled {
        Finding::yes(STALLED, reason, message)
    } else {
        Finding::no(STALLED, reason, "another object may still change that")
    };
    [Finding::no(READY, reason, message), Finding::no(ACCEPTED, reason, message), stalled]
}

/// Messages about several fields name each of them already. An object may also be refused for no field of its own.
fn with_field(field: &str, message: &str) -> String {
    let names_it = message.strip_prefix(field).is_some_and(|rest| rest.starts_with(": "));
    if field.is_empty() || names_it { message.to_owned() } else { format!("{field}: {message}") }
}

/// The conditions to write: what was found, with times kept where the status stays the same. Ordered by type.
pub fn merge(old: &[Condition], findings: &[Finding], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = findings
        .iter()
        .map(|finding| {
            let before = old.iter().find(|condition| condition.type_ == finding.kind);
            let kept = before.filter(|condition| condition.status == finding.status);
            Condition {
                type_: finding.kind.to_owned(),
                status: finding.status.to_owned(),
                reason: finding.reason.clone(),
                message: finding.message.clone(),
                observed_generation: generation,
                last_transition_time: kept.map_or(Time(now), |condition| condition.last_transition_time.clone()),
            }
        })
        .collect();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

/// The same where only some conditions are found anew: those of other types stay as they were.
pub fn merge_some(old: &[Condition], findings: &[Finding], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let is_other = |condition: &&Condition| findings.iter().all(|finding| finding.kind != condition.type_);
    let mut conditions: Vec<Condition> = old.iter().filter(is_other).cloned().collect();
    conditions.extend(merge(old, findings, generation, now));
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

/// The condition of that type.
pub fn find<'conditions>(conditions: &'conditions [Condition], kind: &str) -> Option<&'conditions Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of that type is true and speaks about this generation.
pub fn holds(conditions: &[Condition], kind: &str, generation: Option<i64>) -> bool {
    find(conditions, kind)
        .is_some_and(|condition| condition.status == "True" && condition.observed_generation == generation)
}

/// Whether two messages say the same but for their numbers, which change from one try to the next.
pub(crate) fn same_but_for_numbers(one: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|character| !character.is_ascii_digit()).collect::<String>();
    let (one, other) = (words(one), words(other));
    let [one, other] = [&one, &other].map(|text| text.trim_end_matches("..."));
    // What was cut has fewer words where its numbers have more digits.
    let is_cut = one.len().min(other.len()) >= NEVER_CUT_BYTES_MAX;
    one == other || is_cut && (one.starts_with(other) || other.starts_with(one))
}

/// Whether the API server takes it as the reason of a condition.
pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The message as far as a condition holds it.
pub(crate) fn cut(message: String) -> String {
    if message.chars().count() <= MESSAGE_CHARACTERS_MAX {
        return message;
    }
    message.chars().take(MESSAGE_CHARACTERS_MAX - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        // The API server keeps whole seconds.
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn times_change_only_with_the_status() {
        let first = merge(&[], &[Finding::no(READY, "A", "a")], Some(1), at(1));
        let second = merge(&first, &[Finding::no(READY, "B", "b")], Some(2), at(2));
        assert_eq!(second[0].last_transition_time.0, at(1));
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("B", Some(2)));
        let third = merge(&second, &[Finding::yes(READY, "C", "c")], Some(2), at(3));
        assert_eq!(third[0].last_transition_time.0, at(3));
    }

    #[test]
    fn the_same_findings_give_the_same_conditions_in_any_order() {
        let findings = accepted();
        let first = merge(&[], &findings, Some(1), at(1));
        let reversed: Vec<Finding> = findings.into_iter().rev().collect();
        assert_eq!(merge(&first, &reversed, Some(1), at(9)), first);
    }

    #[test]
    fn conditions_of_types_that_are_not_found_anew_stay_as_they_were() {
        let before = merge(&[], &[Finding::yes(READY, "A", "a"), Finding::yes(ACCEPTED, "B", "b")], Some(1), at(1));
        let after = merge_some(&before, &[Finding::unknown(READY, "C", "c")], Some(2), at(2));
        assert_eq!(find(&after, ACCEPTED), find(&before, ACCEPTED));
        let told = after.iter().map(|one| (one.type_.as_str(), one.status.as_str(), one.last_transition_time.0));
        assert_eq!(told.collect::<Vec<_>>(), [(ACCEPTED, "True", at(1)), (READY, "Unknown", at(2))]);
    }

    #[test]
    fn messages_are_compared_without_their_numbers() {
        assert!(same_but_for_numbers("need 100 bytes, have 3", "need 100 bytes, have 2048"));
        let long = "x".repeat(NEVER_CUT_BYTES_MAX);
        assert!(same_but_for_numbers(&format!("{long} 1000 b..."), &format!("{long} 1 bytes")));
        assert!(!same_but_for_numbers("cannot be read", "cannot be read: permission denied"));
        assert!(!same_but_for_numbers("need 100 bytes", "need 100 inodes"));
    }

    #[test]
    fn a_condition_of_an_old_generation_does_not_hold() {
        let conditions = merge(&[], &[Finding::yes(READY, "A", "a")], Some(1), at(1));
        assert!(holds(&conditions, READY, Some(1)));
        assert!(!holds(&conditions, READY, Some(2)));
        assert!(!holds(&conditions, ACCEPTED, Some(1)));
    }

    #[test]
    fn refusals_name_the_field_once_if_there_is_one() {
        for (field, message, expected) in [
            ("spec.parent", "office a has no parent", "spec.parent: office a has no parent"),
            ("spec.parent", "spec.parent: m; spec.subnets: n", "spec.parent: m; spec.subnets: n"),
            ("spec.sub", "spec.subnets: m", "spec.sub: spec.subnets: m"),
            ("", "there is no Central Office", "there is no Central Office"),
        ] {
            let refusal =
                |stalled| Refusal { field: field.to_owned(), reason: "R", message: message.to_owned(), stalled };
            let [ready, accepted, stalled] = refused(&refusal(true));
            assert_eq!([ready.message(), accepted.message(), stalled.message()], [expected; 3]);
            let [ready, accepted, stalled] = refused(&refusal(false));
            assert_eq!([ready.message(), accepted.message()], [expected; 2]);
            assert!(!stalled.is_true());
        }
    }

    #[test]
    fn endless_messages_are_cut() {
        let conditions = merge(&[], &[Finding::no(READY, "A", "ä".repeat(5000))], None, at(1));
        assert_eq!(conditions[0].message.chars().count(), MESSAGE_CHARACTERS_MAX);
    }
}
