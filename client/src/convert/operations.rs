//! Operators' questions and answers.

use atelier_proto::client::v1 as wire;

use super::malformed;
use crate::error::Error;
use crate::types::{Examination, Finding, FindingLevel, MemberUpdate, NodeId, Replacement};

fn author(why: &str) -> Option<wire::Author> {
    // The peer knows the caller's address and the time.
    Some(wire::Author { who: String::new(), why: why.to_owned(), at_ms: 0 })
}

pub(crate) fn set_member(node: NodeId, update: &MemberUpdate) -> wire::SetMemberRequest {
    let MemberUpdate { draining, labels_set, labels_removed, why } = update;
    wire::SetMemberRequest {
        node,
        draining: *draining,
        labels_set: labels_set.clone().into_iter().collect(),
        labels_removed: labels_removed.clone(),
        author: author(why),
    }
}

pub(crate) fn remove_member(node: NodeId, why: &str) -> wire::RemoveMemberRequest {
    wire::RemoveMemberRequest { node, author: author(why) }
}

pub(crate) fn replace_member(
    node: NodeId,
    replacement: &Replacement,
    why: &str,
) -> wire::ReplaceMemberRequest {
    let (address, comes) = match replacement {
        Replacement::Address(address) => (address.clone(), 0),
        Replacement::Learner(comes) => (String::new(), *comes),
    };
    wire::ReplaceMemberRequest { node, address, comes, author: author(why) }
}

pub(crate) fn examination(reply: wire::ExamineReply) -> Result<Examination, Error> {
    let findings = reply.findings.into_iter().map(finding).collect::<Result<_, _>>()?;
    Ok(Examination { node: reply.node, findings, wall_ms: reply.wall_ms })
}

fn finding(finding: wire::Finding) -> Result<Finding, Error> {
    let level = match wire::FindingLevel::try_from(finding.level) {
        Ok(wire::FindingLevel::Ok) => FindingLevel::Ok,
        Ok(wire::FindingLevel::Warn) => FindingLevel::Warn,
        Ok(wire::FindingLevel::Fail) => FindingLevel::Fail,
        Ok(wire::FindingLevel::Unspecified) | Err(_) => {
            let what = format!("expected a level of 1 to 3, got {}", finding.level);
            return Err(malformed(what));
        }
    };
    let wire::Finding { check, found, fix, .. } = finding;
    Ok(Finding { check, level, found, fix })
}
