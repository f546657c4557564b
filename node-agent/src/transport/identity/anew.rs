//! Why a node that enrolled before needs its token again. Who reads the log of a node that was away for long, or whose
//! server changed meanwhile, finds it there once.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::NodeIdentity;
use crate::transport::PeerIdentity;

impl NodeIdentity {
    /// Says why the certificate is of no use at `address` where the roots with these SHA-256 are trusted.
    pub(in crate::transport) fn say_why_anew(&self, pins: &[[u8; 32]], address: IpAddr, now: SystemTime) {
        if let Some(PeerIdentity::Client { office, node }) = self.identity()
            && let Some(why) = self.news_of_why_anew(pins, address, now)
        {
            tracing::info!(%node, %office, "enrols anew with the token: {why}");
        }
    }

    /// The reason, unless it is the one that was given before.
    pub(in crate::transport) fn news_of_why_anew(
        &self,
        pins: &[[u8; 32]],
        address: IpAddr,
        now: SystemTime,
    ) -> Option<&'static str> {
        let why = self.why_anew(pins, address, now);
        let mut said = self.said_why_anew.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *said, why);
        why.filter(|_| before != why)
    }

    /// `None` before the first enrolment.
    fn why_anew(&self, pins: &[[u8; 32]], address: IpAddr, now: SystemTime) -> Option<&'static str> {
        let credentials = self.credentials()?;
        Some(if !self.trusts_any(pins) {
            "no root that it knows is trusted any more: the root changed while it was away, or the server is another"
        } else if !credentials.is_of_any(pins) {
            "its certificate is of a root that is not trusted any more"
        } else if self.is_expired(now) {
            "its certificate ran out before it could be renewed"
        } else if !self.covers(address) {
            "its certificate is for another address"
        } else if !self.trusts_all(pins) {
            "the root changed before the server could tell of the new one"
        } else {
            "its certificate is for another node or office"
        })
    }
}
