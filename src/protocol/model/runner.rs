//! One runner: its pass, the machine in it, and the requests that are outstanding.

mod fates;

use std::sync::Arc;

use fates::{delete, fates};

use super::super::variant::Variant;
use super::super::{
    Answer, Base, Machine, Manifest, Now, Object, Offer, Old, Policy, Request, Slot, Sources, Undeleted,
};
use super::s3::{Flying, Rollup, S3, Written, append, size};
use super::{Bounds, Fate, Model, Move, bit, menu, numbers, small};

/// An outstanding request and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    slot: Slot<Model>,
    request: Request<Model>,
    /// Keys of a `Gather` or of a `DeleteSources` that are done.
    done: usize,
    left: Vec<usize>,
    undeleted: Vec<(usize, Undeleted)>,
    /// An answer that the machine has not heard yet.
    late: Option<Answer<Model>>,
}

/// What was gathered for a batch, and what it is put behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Body {
    batch: u8,
    old: Old,
    read: u64,
    new: u64,
}

/// R when it was asked for too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen(Option<Rollup>);

/// A pass once it has listed the manifests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing about the whole pass")]
struct Pass {
    policy: Policy,
    listed: Vec<u8>,
    /// The machine at work settles what was listed; the sources are listed after it.
    settling: bool,
    /// Which group's sources are listed next, and after which.
    group: usize,
    after: u8,
    /// OVERWRITE has replaced R.
    replaced: bool,
    machine: Option<Machine<Model>>,
    tasks: Vec<Task>,
    bodies: Vec<Body>,
    /// What `ReadOld` has read.
    old: u64,
    stopped: bool,
    /// R before the manifests were listed, and whether a batch was committed, for the variants that want to know.
    head: Option<Seen>,
    chained: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Off,
    /// The listing of the manifests has begun; these were there.
    Listing(Vec<u8>, Option<Seen>),
    Working(Box<Pass>),
}

/// A runner at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Runner {
    at: u8,
    phase: Phase,
    /// Passes that it has begun.
    passes: usize,
    /// The id of its last batch.
    id: u8,
}

fn flat(sources: &[Sources<Model>]) -> Vec<u8> {
    sources.iter().flat_map(|list| list.iter().copied()).collect()
}

fn set(sources: &[Sources<Model>]) -> u16 {
    flat(sources).into_iter().map(bit).fold(0, |set, bit| set | bit)
}

impl Runner {
    /// Its batches are numbered from here on.
    pub(super) fn new(at: u8, id: u8) -> Self {
        Self { at, phase: Phase::Off, passes: 0, id }
    }

    pub(in super::super) fn is_off(&self) -> bool {
        self.phase == Phase::Off
    }

    fn working(&mut self) -> &mut Pass {
        match &mut self.phase {
            Phase::Working(pass) => pass,
            phase => unreachable!("{phase:?} is no work"),
        }
    }

    fn own(&self, bounds: &Bounds) -> u16 {
        bounds.own[usize::from(self.at)]
    }

    /// Is a batch on its way to S3 that was planned on this tag?
    pub(super) fn planned_on(&self, tag: u64) -> bool {
        let Phase::Working(pass) = &self.phase else { return false };
        pass.tasks.iter().any(|task| match &task.request {
            Request::PutManifest { manifest: Manifest { base, .. }, .. } | Request::Commit { base, .. } => {
                *base == Some(tag) && task.late.is_none()
            }
            _ => false,
        })
    }

    pub(super) fn moves(&self, at: u8, s3: &S3, bounds: &Bounds, menu: u16, moves: &mut Vec<Move>) {
        match &self.phase {
            Phase::Off if self.passes < bounds.runners[usize::from(at)].len() => moves.push(Move::BeginManifests(at)),
            Phase::Off => {}
            Phase::Listing(first, _) => {
                let went = first.iter().any(|batch| s3.manifest(*batch).is_none());
                let came = s3.manifests.iter().any(|written| !first.contains(&written.batch));
                let shown = (0..4).filter(|shown| (went || shown & 1 == 0) && (came || shown & 2 == 0));
                moves.extend(shown.map(|shown| Move::EndManifests(at, shown)));
            }
            Phase::Working(pass) => {
                if pass.lists(bounds) {
                    moves.push(Move::ListSources(at));
                }
                for (place, task) in pass.tasks.iter().enumerate() {
                    moves.push(Move::Step(at, small(place), Fate::Answered));
                    let others = pass.tasks.len() > 1;
                    let fates = fates(task, s3, others).filter(|(fault, _)| menu & fault != 0);
                    moves.extend(fates.map(|(_, fate)| Move::Step(at, small(place), fate)));
                }
                if menu & menu::STOP != 0 && !pass.stopped {
                    moves.push(Move::Stop(at));
                }
            }
        }
        if menu & menu::KILL != 0 && !self.is_off() {
            moves.push(Move::Kill(at));
        }
    }

    /// A step of one of the listings.
    pub(super) fn list(&mut self, s3: &S3, bounds: &Bounds, made: Move) {
        match (made, &self.phase) {
            (Move::BeginManifests(_), Phase::Off) => {
                self.passes += 1;
                let head = (bounds.variant == Variant::HeadBeforeList).then_some(Seen(s3.rollup));
                self.phase = Phase::Listing(s3.manifests.iter().map(|written| written.batch).collect(), head);
            }
            (Move::EndManifests(_, shown), Phase::Listing(first, head)) => {
                let went = |batch: &u8| shown & 1 != 0 || s3.manifest(*batch).is_some();
                let came = |batch: &u8| shown & 2 != 0 && !first.contains(batch);
                let now = s3.manifests.iter().map(|written| written.batch);
                let mut listed: Vec<u8> = first.iter().copied().filter(went).chain(now.filter(came)).collect();
                listed.sort_unstable();
                let policy = self.policy(bounds);
                let mut pass = Box::new(Pass::new(policy, listed, *head));
                if !pass.listed.is_empty() {
                    pass.begin(bounds);
                    pass.settling = true;
                    pass.close();
                }
                self.phase = Phase::Working(pass);
                self.poll(s3, bounds);
            }
            (Move::ListSources(_), Phase::Working(_)) => {
                let own = self.own(bounds) & s3.present;
                self.working().list_sources(own, bounds);
                self.poll(s3, bounds);
            }
            (made, phase) => unreachable!("{made:?} in {phase:?}"),
        }
    }

    fn policy(&self, bounds: &Bounds) -> Policy {
        bounds.runners[usize::from(self.at)][self.passes - 1]
    }

    pub(super) fn stop(&mut self, s3: &S3, bounds: &Bounds) {
        let pass = self.working();
        pass.group = bounds.groups.len();
        pass.stopped = true;
        if let Some(machine) = &mut pass.machine {
            machine.stop();
        }
        self.poll(s3, bounds);
    }

    pub(super) fn kill(&mut self, s3: &mut S3, bounds: &Bounds) {
        if let Phase::Working(pass) = &self.phase
            && bounds.meets(menu::LOSE)
        {
            let own = self.own(bounds);
            for task in pass.tasks.iter().filter(|task| task.late.is_none()) {
                pass.fly(task, own, s3);
                if let Request::DeleteSources(sources) = &task.request {
                    s3.deleting |= flat(sources)[task.done..].iter().map(|source| bit(*source)).fold(0, |a, b| a | b);
                }
            }
            s3.deleting &= s3.present;
        }
        self.phase = Phase::Off;
    }

    fn poll(&mut self, s3: &S3, bounds: &Bounds) {
        let Phase::Working(pass) = &mut self.phase else { return };
        let id = &mut self.id;
        if let Some(machine) = &mut pass.machine {
            let requests = machine.poll(&mut || {
                *id += 1;
                *id
            });
            for (slot, request) in requests {
                pass.ask(slot, request);
            }
        }
        let ended = pass.end_machine(bounds);
        assert!(ended || !pass.tasks.is_empty() || pass.lists(bounds), "the pass awaits nothing: {pass:?} {s3:?}");
        if ended {
            self.phase = Phase::Off;
        }
    }

    pub(super) fn step(&mut self, place: usize, fate: Fate, s3: &mut S3, bounds: &Bounds) -> Result<(), String> {
        let own = self.own(bounds);
        let pass = self.working();
        let mut task = pass.tasks[place].clone();
        let answer = match task.late.take() {
            Some(answer) => Some(answer),
            None => pass.perform(&mut task, fate, s3, own, bounds)?,
        };
        match answer {
            None => pass.tasks[place] = task,
            Some(answer) if fate == Fate::AnsweredLate => {
                task.late = Some(answer);
                pass.tasks[place] = task;
            }
            Some(answer) => {
                pass.tasks.remove(place);
                if let (Answer::Committed(_), Request::Commit { batch, .. }) = (&answer, &task.request) {
                    pass.bodies.retain(|body| body.batch != *batch);
                    pass.chained = bounds.variant == Variant::ChainsOnAnything;
                }
                let machine = pass.machine.as_mut().expect("a request has a machine");
                machine.answer(task.slot, answer);
                self.poll(s3, bounds);
            }
        }
        Ok(())
    }
}

impl Pass {
    fn new(policy: Policy, listed: Vec<u8>, head: Option<Seen>) -> Self {
        Self {
            policy,
            listed,
            settling: false,
            group: 0,
            after: 0,
            replaced: false,
            machine: None,
            tasks: Vec::new(),
            bodies: Vec::new(),
            old: 0,
            stopped: false,
            head,
            chained: false,
        }
    }

    fn lists(&self, bounds: &Bounds) -> bool {
        self.group < bounds.groups.len()
            && !self.settling
            && self.machine.as_ref().is_none_or(|machine| machine.backlog() == 0 && machine.failure().is_none())
    }

    fn begin(&mut self, bounds: &Bounds) {
        let policy = Policy { overwrite: self.policy.overwrite && !self.replaced, ..self.policy };
        self.machine = Some(Machine::new(policy, self.listed.iter().copied()).broken(bounds.variant));
    }

    fn close(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.close();
        }
    }

    /// One page, or with `listed_at_once` all of them.
    fn list_sources(&mut self, present: u16, bounds: &Bounds) {
        loop {
            let (group, after) = (bounds.groups[self.group], self.after);
            let left: Vec<u8> = numbers(present & group).filter(|source| *source > after).collect();
            let page = &left[..left.len().min(bounds.batch)];
            if let Some(last) = page.last() {
                self.after = *last;
                if self.machine.is_none() {
                    self.begin(bounds);
                }
                let (empty, sources): (Vec<u8>, Vec<u8>) =
                    page.iter().partition(|source| bounds.empty & bit(**source) != 0);
                let machine = self.machine.as_mut().expect("begun above");
                machine.offer(Offer { sources: sources.into(), empty: empty.into(), scope: () });
            }
            if page.len() == left.len() {
                self.group += 1;
                self.after = 0;
                self.close();
            }
            if !bounds.listed_at_once || self.group == bounds.groups.len() {
                return;
            }
        }
    }

    fn ask(&mut self, slot: Slot<Model>, request: Request<Model>) {
        match &request {
            Request::Head { .. } => self.chained = false,
            Request::Discard(batch) => self.tasks.retain(|task| task.slot != Slot::Gather(*batch)),
            Request::Gather { batch, old, .. } => {
                let read = if *old == Old::Read { std::mem::take(&mut self.old) } else { 0 };
                self.bodies.push(Body { batch: *batch, old: old.clone(), read, new: 0 });
            }
            _ => {}
        }
        self.tasks.push(Task { slot, request, done: 0, left: Vec::new(), undeleted: Vec::new(), late: None });
    }

    /// Lets a machine go that has ended. Has the pass?
    fn end_machine(&mut self, bounds: &Bounds) -> bool {
        if let Some(machine) = &self.machine {
            let failed = machine.failure().is_some() && machine.idle();
            if !failed && !machine.finished() {
                return false;
            }
            assert!(self.tasks.is_empty(), "a machine that has ended awaits no answer: {self:?}");
            self.replaced |= self.policy.overwrite && !machine.replaces();
            if failed {
                return true;
            }
            self.machine = None;
            self.bodies.clear();
            self.settling = false;
        }
        self.group == bounds.groups.len()
    }

    fn fly(&self, task: &Task, own: u16, s3: &mut S3) {
        match &task.request {
            Request::PutManifest { batch, manifest } => s3.fly(Flying::Put(written(*batch, manifest, own))),
            Request::Commit { batch, base } => {
                let content = self.content(*batch, *base);
                s3.fly(Flying::Commit { batch: *batch, base: *base, content });
            }
            Request::DeleteManifest(batch) => s3.fly(Flying::DeleteManifest(*batch)),
            _ => {}
        }
    }

    /// The bytes of the new R: what is copied is copied only if R is still the base.
    fn content(&self, batch: u8, base: Base<Model>) -> u64 {
        let body = self.bodies.iter().find(|body| body.batch == batch).expect("a commit has a body");
        let old = match body.old {
            Old::Nothing => 0,
            Old::Read => body.read,
            Old::Copied(_) => base.unwrap_or(0),
        };
        assert!(body.old != Old::Read || Some(old) == base, "the old bytes of {batch} are another R's than its base");
        append(old, body.new)
    }

    fn perform(
        &mut self,
        task: &mut Task,
        fate: Fate,
        s3: &mut S3,
        own: u16,
        bounds: &Bounds,
    ) -> Result<Option<Answer<Model>>, String> {
        match fate {
            Fate::Unanswered | Fate::SentTwice | Fate::Failed => self.fly(task, own, s3),
            _ => {}
        }
        let answer = match (fate, &task.request) {
            (Fate::SentTwice, _) => return Ok(None),
            (Fate::Failed, _) => Answer::Failed,
            (Fate::Denied, _) => Answer::Denied,
            (Fate::Unanswered, Request::PutManifest { .. } | Request::Commit { .. }) => Answer::NoAnswer,
            (Fate::Unanswered, Request::Gather { .. }) => Answer::Changed,
            (_, Request::DeleteSources(sources)) if self.policy.keep => {
                return Err(format!("a pass that keeps its sources deletes {sources:?}"));
            }
            (_, Request::DeleteSources(sources)) => {
                let sources = flat(sources);
                return Ok(delete(task, &sources, fate, s3));
            }
            (_, Request::Gather { batch, sources, .. }) => {
                let (batch, sources) = (*batch, Arc::clone(sources));
                return Ok(self.gather(task, batch, &sources, fate, s3));
            }
            _ => self.answer(task, s3, own, bounds)?,
        };
        Ok(Some(answer))
    }

    fn answer(&mut self, task: &mut Task, s3: &mut S3, own: u16, bounds: &Bounds) -> Result<Answer<Model>, String> {
        let missing = if bounds.hides { Answer::Denied } else { Answer::Missing };
        Ok(match &mut task.request {
            Request::Head { .. } => match self.head.take().map_or(s3.rollup, |Seen(rollup)| rollup) {
                Some(Rollup { content, batch }) => {
                    Answer::Found { etag: content, size: size(content), batch: Some(batch) }
                }
                None => missing,
            },
            Request::Find(Object::Rollup) => Answer::There(s3.rollup.is_some()),
            Request::Find(Object::Manifest(batch)) => Answer::There(s3.manifest(*batch).is_some()),
            Request::GetManifest(batch) => s3.manifest(*batch).map_or(missing, |written| {
                let merged = numbers(written.merged & own).collect();
                Answer::Manifest(Manifest { base: written.base, merged: vec![merged], foreign: written.merged & !own })
            }),
            Request::ReadOld { etag, size } => match s3.rollup {
                Some(rollup) if rollup.content == *etag => {
                    self.old = if *size < self.policy.min_part { *etag } else { 0 };
                    Answer::Read
                }
                None if bounds.hides => Answer::Denied,
                _ => Answer::Changed,
            },
            Request::CheckKept(sources) => {
                Answer::Gone(sources.iter().filter(|source| s3.present & bit(**source) == 0).copied().collect())
            }
            Request::PutManifest { batch, manifest } => {
                let written = written(*batch, manifest, own);
                if self.policy.keep && (written.merged & own).count_ones() as usize > self.policy.max_kept {
                    return Err(format!("{batch} remembers more than a manifest may"));
                }
                s3.put_manifest(written);
                Answer::Done
            }
            Request::Commit { batch, base } => {
                if self.chained {
                    *base = s3.rollup.map(|rollup| rollup.content);
                }
                let content = self.content(*batch, *base);
                if s3.commit(*batch, *base, content, bounds.variant)? {
                    Answer::Committed(content)
                } else {
                    Answer::Changed
                }
            }
            Request::Discard(batch) => {
                self.bodies.retain(|body| body.batch != *batch);
                Answer::Done
            }
            Request::HeadSources(sources) => {
                let there = |source: &u8| s3.present & bit(*source) != 0;
                Answer::Heads(sources.iter().map(|s| if there(s) { Now::Same } else { Now::Gone }).collect())
            }
            Request::DeleteManifest(batch) => {
                s3.delete_manifest(*batch, bounds)?;
                Answer::Done
            }
            Request::Gather { .. } | Request::DeleteSources(_) => unreachable!("it is answered key by key"),
        })
    }

    fn gather(&mut self, task: &mut Task, batch: u8, sources: &[u8], fate: Fate, s3: &S3) -> Option<Answer<Model>> {
        let source = sources[task.done];
        let body = self.bodies.iter_mut().find(|body| body.batch == batch).expect("made with the request");
        if s3.present & bit(source) == 0 || fate == Fate::Unreadable {
            task.left.push(task.done);
        } else {
            body.new = append(body.new, source.into());
        }
        task.done += 1;
        (task.done == sources.len()).then(|| Answer::Gathered { left: task.left.clone(), added: size(body.new) })
    }
}

fn written(batch: u8, manifest: &Manifest<Model>, own: u16) -> Written {
    debug_assert_eq!(set(&manifest.merged) & !own, 0, "only own sources are merged");
    Written { batch, base: manifest.base, merged: set(&manifest.merged) | manifest.foreign }
}
