//! What may happen to an outstanding request, and to each key of a delete.

use super::super::{Fate, bit, menu};
use super::{Model, S3, Task, flat};
use crate::protocol::{Answer, Request, Undeleted};

/// How a request may go on besides being answered, and by which fault.
pub(super) fn fates(task: &Task, s3: &S3, others: bool) -> impl Iterator<Item = (u16, Fate)> + use<> {
    let (lose, twice, fail) =
        ((menu::LOSE, Fate::Unanswered), (menu::TWICE, Fate::SentTwice), (menu::FAIL, Fate::Failed));
    let mut fates = match &task.request {
        _ if task.late.is_some() => Vec::new(),
        Request::PutManifest { .. } | Request::Commit { .. } => vec![lose, twice, fail],
        Request::DeleteManifest(_) => vec![twice, fail],
        Request::DeleteSources(_) => {
            vec![lose, (menu::UNDELETED, Fate::Condition), (menu::UNDELETED, Fate::Refused)]
        }
        Request::Gather { sources, .. } => {
            let there = sources.get(task.done).is_some_and(|source| s3.present & bit(*source) != 0);
            let unreadable = there.then_some((menu::UNREADABLE, Fate::Unreadable));
            // Unanswered: somebody has ended its upload.
            unreadable.into_iter().chain([fail, (menu::FAIL, Fate::Unanswered)]).collect()
        }
        Request::Head { .. } | Request::GetManifest(_) | Request::ReadOld { .. } => {
            vec![fail, (menu::DENY, Fate::Denied)]
        }
        Request::Find(_) | Request::CheckKept(_) | Request::HeadSources(_) => vec![fail],
        Request::Discard(_) => Vec::new(),
    };
    let answers = match &task.request {
        Request::Discard(_) => false,
        Request::Gather { sources, .. } => task.done + 1 >= sources.len(),
        Request::DeleteSources(sources) => task.done + 1 >= flat(sources).len(),
        _ => true,
    };
    if others && answers && task.late.is_none() {
        fates.push((menu::LATE, Fate::AnsweredLate));
    }
    fates.into_iter()
}

/// The next key of a delete; an answer when it was the last.
pub(super) fn delete(task: &mut Task, sources: &[u8], fate: Fate, s3: &mut S3) -> Option<Answer<Model>> {
    if let Some(source) = sources.get(task.done) {
        let undeleted = match fate {
            Fate::Unanswered => Some(Undeleted::Failed),
            Fate::Condition => Some(Undeleted::Condition),
            Fate::Refused => Some(Undeleted::Refused),
            _ => None,
        };
        match undeleted {
            None => {
                s3.present &= !bit(*source);
                s3.deleting &= !bit(*source);
            }
            Some(why) => task.undeleted.push((task.done, why)),
        }
        if fate == Fate::Unanswered {
            s3.deleting |= bit(*source) & s3.present;
        }
        task.done += 1;
    }
    (task.done >= sources.len()).then(|| Answer::Deleted(task.undeleted.clone()))
}
