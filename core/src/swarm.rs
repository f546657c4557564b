//! What a rendezvous point knows and decides for its office: who holds which chunk ([`office_view`], [`member_package`]), which member
//! fetches what from whom ([`assigner`]), what comes to members anyway ([`coming`]), who is left alone for not delivering
//! ([`avoidance`]), what was given over each link to a child office ([`ledger`]), and what to ask of the parent office
//! ([`upstream`]).

pub mod assigner;
pub mod avoidance;
pub mod coming;
pub mod ledger;
pub mod member_package;
pub mod office_view;
pub mod upstream;
