//! A model of one rollup in S3, its sources and the runners that work on it, in which every step is one request.
//!
//! Sources are numbered; R's content is the sequence of their numbers, packed into an integer that is R's `ETag` as
//! well (S3's tags follow the bytes). Whatever the network and the store may do at a moment is one [`Move`] each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answer, Machine, Manifest, Now, Object, Offer, Old, Policy, Request, Slot, Sources, Undeleted, World};

/// The model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Model;

impl World for Model {
    type Source = u8;
    type ETag = u64;
    type Batch = u8;
    type Foreign = u16;
    type Scope = ();

    fn none(foreign: &u16) -> bool {
        *foreign == 0
    }

    fn unlisted(offer: &Offer<Self>, carried: &[Sources<Self>]) -> Vec<u8> {
        carried.iter().flat_map(|list| list.iter()).filter(|source| !offer.sources.contains(source)).copied().collect()
    }
}

/// What a run of the search covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How each runner is set; their number is the number of runners.
    pub(super) runners: [Option<Policy>; 2],
    /// Passes that each runner may begin.
    pub(super) passes: u8,
    /// Sources that exist at the start, and such as may appear at any time.
    pub(super) early: u16,
    pub(super) late: u16,
    /// Sources in a batch.
    pub(super) batch: usize,
    /// Crashes, lost answers, delayed commits and failed deletes in all.
    pub(super) faults: u8,
    /// S3 answers 403 for what is missing.
    pub(super) hides: bool,
}

/// R: its content, and the batch that last changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rollup {
    pub(super) content: u64,
    pub(super) batch: u8,
}

/// A commit that got no answer and may be applied at any later time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flying {
    batch: u8,
    base: Option<u64>,
    content: u64,
}

/// An outstanding request and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    slot: Slot<Model>,
    request: Request<Model>,
    /// Keys of a `Gather` or of a `DeleteSources` that are done.
    done: usize,
    left: Vec<usize>,
    undeleted: Vec<(usize, Undeleted)>,
}

/// What was gathered for a batch, and what it is put behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Body {
    sources: Vec<u8>,
    old: Old,
    read: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "a runner is running nearly always")]
enum Phase {
    Off,
    /// The manifests are listed, the sources not yet.
    Listed(Vec<u8>),
    Running {
        machine: Machine<Model>,
        tasks: Vec<Task>,
        bodies: BTreeMap<u8, Body>,
        old: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Runner {
    phase: Phase,
    passes: u8,
    ids: u8,
}

/// The whole world at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) rollup: Option<Rollup>,
    pub(super) manifests: BTreeMap<u8, Arc<Manifest<Model>>>,
    /// Sources that exist, and that ever existed.
    pub(super) present: u16,
    pub(super) put: u16,
    flying: Vec<Flying>,
    runners: Vec<Arc<Runner>>,
    faults: u8,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Applied and answered.
    Answered,
    /// Applied; the answer is lost (for a delete: it is said to have failed).
    AnswerLost,
    /// Not applied, no answer.
    Lost,
    /// Not answered, and applied at some later time, if at all.
    Delayed,
}

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// A source appears.
    Put(u8),
    /// A runner begins a pass by listing the manifests.
    ListManifests(usize),
    /// It lists the sources and starts the machine.
    ListSources(usize),
    /// The outstanding request at this place of a runner's list goes one step on.
    Step(usize, usize, Fate),
    /// A runner is killed.
    Kill(usize),
    /// A delayed commit arrives.
    Arrive(usize),
}

pub(super) fn content_of(content: u64) -> impl Iterator<Item = u8> {
    (0..16).map(move |at| u8::try_from(content >> (4 * at) & 15).expect("four bits")).take_while(|source| *source != 0)
}

/// Source numbers start at 1, so that a packed sequence has no leading nothing.
fn append(content: u64, sources: impl IntoIterator<Item = u8>) -> u64 {
    let first = content_of(content).count();
    sources.into_iter().zip(first..).fold(content, |grown, (source, at)| grown | u64::from(source) << (4 * at))
}

fn size(content: u64) -> u64 {
    content_of(content).count() as u64
}

pub(super) fn bit(source: u8) -> u16 {
    1 << source
}

fn numbers(set: u16) -> impl Iterator<Item = u8> {
    (1..16).filter(move |source| set & bit(*source) != 0)
}

fn set_of(content: u64) -> u16 {
    content_of(content).map(bit).fold(0, |set, bit| set | bit)
}

pub(super) fn merged(manifest: &Manifest<Model>) -> u16 {
    manifest.merged.iter().flat_map(|list| list.iter()).map(|source| bit(*source)).fold(0, |set, bit| set | bit)
}

impl State {
    pub(super) fn start(bounds: &Bounds) -> Self {
        let runners = bounds.runners.iter().flatten();
        Self {
            rollup: None,
            manifests: BTreeMap::new(),
            present: bounds.early,
            put: bounds.early,
            flying: Vec::new(),
            runners: runners.map(|_| Arc::new(Runner { phase: Phase::Off, passes: bounds.passes, ids: 0 })).collect(),
            faults: bounds.faults,
        }
    }

    /// Nobody is at work and nothing is on its way.
    pub(super) fn quiet(&self) -> bool {
        self.flying.is_empty() && self.runners.iter().all(|runner| runner.phase == Phase::Off)
    }

    /// The same world with one runner that has one more pass and meets no fault.
    pub(super) fn for_a_clean_pass(&self) -> Self {
        let mut state = self.clone();
        state.faults = 0;
        state.runners.truncate(1);
        Arc::make_mut(&mut state.runners[0]).passes = 1;
        state
    }

    pub(super) fn moves(&self, bounds: &Bounds) -> Vec<Move> {
        let mut moves: Vec<_> = numbers(bounds.late & !self.put).map(Move::Put).collect();
        moves.extend((0..self.flying.len()).map(Move::Arrive));
        for (at, runner) in self.runners.iter().enumerate() {
            match &runner.phase {
                Phase::Off if runner.passes > 0 => moves.push(Move::ListManifests(at)),
                Phase::Off => {}
                Phase::Listed(_) => moves.push(Move::ListSources(at)),
                Phase::Running { tasks, .. } => {
                    for (task, Task { request, .. }) in tasks.iter().enumerate() {
                        let fates = if self.faults > 0 { fates(request) } else { &[Fate::Answered] };
                        moves.extend(fates.iter().map(|fate| Move::Step(at, task, *fate)));
                    }
                    if self.faults > 0 {
                        moves.push(Move::Kill(at));
                    }
                }
            }
        }
        moves
    }

    /// The world after a move, or what it breaks.
    pub(super) fn after(&self, made: Move, bounds: &Bounds) -> Result<Self, String> {
        let mut next = self.clone();
        match made {
            Move::Put(source) => {
                next.present |= bit(source);
                next.put |= bit(source);
            }
            Move::ListManifests(at) => {
                let listed = next.manifests.keys().copied().collect();
                let runner = Arc::make_mut(&mut next.runners[at]);
                runner.passes -= 1;
                runner.phase = Phase::Listed(listed);
            }
            Move::ListSources(at) => next.list_sources(at, bounds),
            Move::Step(at, task, fate) => {
                next.faults -= u8::from(fate != Fate::Answered);
                next.step(at, task, fate, bounds)?;
            }
            Move::Kill(at) => {
                next.faults -= 1;
                Arc::make_mut(&mut next.runners[at]).phase = Phase::Off;
            }
            Move::Arrive(at) => {
                let Flying { batch, base, content } = next.flying.remove(at);
                next.commit(batch, base, content)?;
            }
        }
        next.check_state()?;
        Ok(next)
    }

    fn list_sources(&mut self, at: usize, bounds: &Bounds) {
        let policy = bounds.runners[at].expect("the runner exists");
        let present: Vec<u8> = numbers(self.present).collect();
        let runner = Arc::make_mut(&mut self.runners[at]);
        let Phase::Listed(listed) = &runner.phase else { unreachable!("the manifests are listed first") };
        let mut machine = Machine::new(policy, listed.iter().copied());
        for batch in present.chunks(bounds.batch) {
            machine.offer(Offer { sources: batch.into(), empty: Arc::new([]), scope: () });
        }
        machine.close();
        runner.phase = Phase::Running { machine, tasks: Vec::new(), bodies: BTreeMap::new(), old: 0 };
        self.poll(at);
    }

    fn poll(&mut self, at: usize) {
        let runner = Arc::make_mut(&mut self.runners[at]);
        let Phase::Running { machine, tasks, .. } = &mut runner.phase else { return };
        let first = u8::try_from(at * 100).expect("two runners");
        let ids = &mut runner.ids;
        let requests = machine.poll(&mut || {
            *ids += 1;
            first + *ids
        });
        for (slot, request) in requests {
            if let Request::Discard(batch) = request {
                tasks.retain(|task| task.slot != Slot::Gather(batch));
            }
            tasks.push(Task { slot, request, done: 0, left: Vec::new(), undeleted: Vec::new() });
        }
        if machine.finished() {
            assert!(tasks.is_empty(), "a machine that has finished awaits no answer: {tasks:?} {machine:?}");
            runner.phase = Phase::Off;
        } else {
            assert!(!tasks.is_empty(), "a machine that has not finished awaits an answer: {machine:?}");
        }
    }

    fn step(&mut self, at: usize, index: usize, fate: Fate, bounds: &Bounds) -> Result<(), String> {
        let runner = Arc::clone(&self.runners[at]);
        let Phase::Running { tasks, .. } = &runner.phase else { unreachable!("only a running pass has tasks") };
        let mut task = tasks[index].clone();
        let answer = self.perform(at, &mut task, fate, bounds)?;
        let runner = Arc::make_mut(&mut self.runners[at]);
        let Phase::Running { machine, tasks, .. } = &mut runner.phase else { unreachable!("checked above") };
        match answer {
            None => tasks[index] = task,
            Some(answer) => {
                tasks.remove(index);
                machine.answer(task.slot, answer);
                self.poll(at);
            }
        }
        Ok(())
    }

    fn perform(
        &mut self,
        at: usize,
        task: &mut Task,
        fate: Fate,
        bounds: &Bounds,
    ) -> Result<Option<Answer<Model>>, String> {
        let missing = if bounds.hides { Answer::Denied } else { Answer::Missing };
        Ok(Some(match task.request.clone() {
            Request::Head { .. } => self.rollup.map_or(missing, |rollup| Answer::Found {
                etag: rollup.content,
                size: size(rollup.content),
                batch: Some(rollup.batch),
            }),
            Request::Find(Object::Rollup) => Answer::There(self.rollup.is_some()),
            Request::Find(Object::Manifest(batch)) => Answer::There(self.manifests.contains_key(&batch)),
            Request::GetManifest(batch) => {
                self.manifests.get(&batch).map_or(missing, |manifest| Answer::Manifest((**manifest).clone()))
            }
            Request::ReadOld { etag, .. } => self.read_old(at, etag),
            // Somebody has aborted the upload.
            Request::Gather { .. } if fate == Fate::Lost => Answer::Changed,
            Request::Gather { batch, sources, old } => return Ok(self.gather(at, task, batch, &sources, &old)),
            Request::CheckKept(sources) => {
                Answer::Gone(sources.iter().filter(|source| self.present & bit(**source) == 0).copied().collect())
            }
            Request::PutManifest { batch, manifest } => {
                if fate != Fate::Lost {
                    self.manifests.insert(batch, Arc::new(manifest));
                }
                if fate == Fate::Answered { Answer::Done } else { Answer::NoAnswer }
            }
            Request::Commit { batch, base } => self.committing(at, batch, base, fate)?,
            Request::Discard(batch) => {
                self.bodies(at).remove(&batch);
                Answer::Done
            }
            Request::DeleteSources(sources) => return Ok(self.delete(task, &sources, fate)),
            Request::HeadSources(sources) => Answer::Heads(vec![Now::Same; sources.len()]),
            Request::DeleteManifest(batch) => {
                self.delete_manifest(batch)?;
                Answer::Done
            }
        }))
    }

    fn bodies(&mut self, at: usize) -> &mut BTreeMap<u8, Body> {
        match &mut Arc::make_mut(&mut self.runners[at]).phase {
            Phase::Running { bodies, .. } => bodies,
            _ => unreachable!("only a running pass has bodies"),
        }
    }

    fn read_old(&mut self, at: usize, etag: u64) -> Answer<Model> {
        let content = self.rollup.map(|rollup| rollup.content);
        let Phase::Running { old, .. } = &mut Arc::make_mut(&mut self.runners[at]).phase else {
            unreachable!("only a running pass reads")
        };
        if content == Some(etag) {
            *old = etag;
            Answer::Read
        } else {
            Answer::Changed
        }
    }

    fn gather(&mut self, at: usize, task: &mut Task, batch: u8, sources: &[u8], old: &Old) -> Option<Answer<Model>> {
        if self.present & bit(sources[task.done]) == 0 {
            task.left.push(task.done);
        }
        task.done += 1;
        if task.done < sources.len() {
            return None;
        }
        let read: Vec<u8> =
            sources.iter().enumerate().filter(|(place, _)| !task.left.contains(place)).map(|(_, s)| *s).collect();
        let added = read.len() as u64;
        let kept = match &self.runners[at].phase {
            Phase::Running { old, .. } => *old,
            _ => 0,
        };
        self.bodies(at).insert(batch, Body { sources: read, old: old.clone(), read: kept });
        Some(Answer::Gathered { left: task.left.clone(), added })
    }

    /// The bytes of the new R: what is copied is what R holds at that moment, and only if it is still the base.
    fn new_content(body: &Body, base: Option<u64>) -> u64 {
        let old = match body.old {
            Old::Nothing => 0,
            Old::Read => body.read,
            Old::Copied(_) => base.unwrap_or(0),
        };
        append(old, body.sources.iter().copied())
    }

    fn committing(&mut self, at: usize, batch: u8, base: Option<u64>, fate: Fate) -> Result<Answer<Model>, String> {
        let body = self.bodies(at).remove(&batch).ok_or("a commit without a body")?;
        let content = Self::new_content(&body, base);
        if body.old == Old::Read && Some(body.read) != base {
            return Err(format!("the body of {batch} was read from another R than its base"));
        }
        match fate {
            Fate::Answered => {
                let applied = self.commit(batch, base, content)?;
                Ok(if applied { Answer::Committed(content) } else { Answer::Changed })
            }
            Fate::AnswerLost => {
                self.commit(batch, base, content)?;
                Ok(Answer::NoAnswer)
            }
            Fate::Lost => Ok(Answer::NoAnswer),
            Fate::Delayed => {
                self.flying.push(Flying { batch, base, content });
                Ok(Answer::NoAnswer)
            }
        }
    }

    /// The conditional write of R, with I4 and I5.
    fn commit(&mut self, batch: u8, base: Option<u64>, content: u64) -> Result<bool, String> {
        if self.rollup.map(|rollup| rollup.content) != base {
            return Ok(false);
        }
        let manifest = self.manifests.get(&batch).ok_or_else(|| format!("I3: {batch} commits without its manifest"))?;
        let held = base.map_or(0, set_of) & self.present;
        let replaced = size(content) <= base.map_or(0, size);
        if held & !merged(manifest) != 0 && !replaced {
            return Err(format!("I4: {batch} commits without carrying {:016b}", held & !merged(manifest)));
        }
        self.rollup = Some(Rollup { content, batch });
        Ok(true)
    }

    fn delete(&mut self, task: &mut Task, sources: &[Sources<Model>], fate: Fate) -> Option<Answer<Model>> {
        let flat: Vec<u8> = sources.iter().flat_map(|list| list.iter().copied()).collect();
        if let Some(source) = flat.get(task.done) {
            if fate != Fate::Lost {
                self.present &= !bit(*source);
            }
            if fate != Fate::Answered {
                task.undeleted.push((task.done, Undeleted::Failed));
            }
            task.done += 1;
        }
        (task.done >= flat.len()).then(|| Answer::Deleted(task.undeleted.clone()))
    }

    /// I6.
    fn delete_manifest(&mut self, batch: u8) -> Result<(), String> {
        let Some(manifest) = self.manifests.remove(&batch) else { return Ok(()) };
        let named = self.rollup.is_some_and(|rollup| rollup.batch == batch);
        let may_commit = !named && manifest.base == self.rollup.map(|rollup| rollup.content);
        let needed = merged(&manifest) & self.present != 0;
        if (named || may_commit) && needed {
            return Err(format!("I6: the manifest of {batch} is deleted while it is needed"));
        }
        Ok(())
    }

    /// I1, I2, I3.
    fn check_state(&self) -> Result<(), String> {
        let content = self.rollup.map_or(0, |rollup| rollup.content);
        let mut held = 0;
        for source in content_of(content) {
            if held & bit(source) != 0 {
                return Err(format!("I1: source {source} is in the rollup twice"));
            }
            held |= bit(source);
        }
        let absent = self.put & !self.present;
        if absent & !held != 0 {
            return Err(format!("I2: sources {:016b} are lost", absent & !held));
        }
        if let Some(Rollup { batch, .. }) = self.rollup
            && !self.manifests.contains_key(&batch)
            && held & self.present != 0
        {
            return Err(format!("I3: the rollup names {batch}, its manifest is missing, sources still exist"));
        }
        Ok(())
    }
}

fn fates(request: &Request<Model>) -> &'static [Fate] {
    match request {
        Request::Gather { .. } => &[Fate::Answered, Fate::Lost],
        Request::PutManifest { .. } | Request::DeleteSources(_) => &[Fate::Answered, Fate::AnswerLost, Fate::Lost],
        Request::Commit { .. } => &[Fate::Answered, Fate::AnswerLost, Fate::Lost, Fate::Delayed],
        _ => &[Fate::Answered],
    }
}
