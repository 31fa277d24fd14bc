//! What a search remembers: the parts of states by number, the states that were visited, and how each was reached.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::model::{MOST_RUNNERS, Move};

/// Tables side by side, so that threads seldom wait for each other.
const TABLES: usize = 64;

/// A state: the numbers of S3 and of each runner, packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn new(parts: [u32; 1 + MOST_RUNNERS]) -> Self {
        Self(parts.into_iter().rev().fold(0, |packed, part| packed << 32 | u128::from(part)))
    }

    #[expect(clippy::cast_possible_truncation, reason = "one part of four")]
    pub(super) fn parts(self) -> [u32; 1 + MOST_RUNNERS] {
        std::array::from_fn(|at| (self.0 >> (32 * at)) as u32)
    }
}

/// The multiplication hash of FNV's family on words: quick, and only where a value is looked for, never what it is.
#[derive(Default)]
pub(super) struct Words(u64);

impl Hasher for Words {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ mixed >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are hashed")]
    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }
}

type ByWords = BuildHasherDefault<Words>;

fn table_of(value: &impl Hash) -> usize {
    // Other bits than those by which a map finds its own places.
    usize::try_from(ByWords::default().hash_one(value) >> 40).expect("24 bits") % TABLES
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the value at a place of a table.
fn number_of(table: usize, place: usize) -> u32 {
    u32::try_from(place * TABLES + table).expect("fewer than four billion")
}

fn place_of(number: u32) -> (usize, usize) {
    (number as usize % TABLES, number as usize / TABLES)
}

struct Table<T> {
    numbers: HashMap<Arc<T>, u32, ByWords>,
    values: Vec<Arc<T>>,
}

/// Values, each kept once and known by its number.
pub(super) struct Interned<T>(Vec<Mutex<Table<T>>>);

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self((0..TABLES).map(|_| Mutex::new(Table { numbers: HashMap::default(), values: Vec::new() })).collect())
    }
}

impl<T: Eq + Hash> Interned<T> {
    pub(super) fn number(&self, value: &Arc<T>) -> u32 {
        let at = table_of(value);
        let mut table = lock(&self.0[at]);
        let number = number_of(at, table.values.len());
        match table.numbers.entry(Arc::clone(value)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                new.insert(number);
                table.values.push(Arc::clone(value));
                number
            }
        }
    }

    pub(super) fn get(&self, number: u32) -> Arc<T> {
        let (table, place) = place_of(number);
        Arc::clone(&lock(&self.0[table]).values[place])
    }
}

#[derive(Default)]
struct Seen {
    keys: HashSet<Key, ByWords>,
    /// From which state, by which move; in the order of their coming.
    trail: Vec<Option<(u32, Move)>>,
}

/// Every state that was reached, and how.
pub(super) struct Visited(Vec<Mutex<Seen>>);

impl Default for Visited {
    fn default() -> Self {
        Self((0..TABLES).map(|_| Mutex::default()).collect())
    }
}

impl Visited {
    /// Its place in the trail, if the state is new.
    pub(super) fn insert(&self, key: Key, from: Option<(u32, Move)>) -> Option<u32> {
        let at = table_of(&key);
        let mut seen = lock(&self.0[at]);
        seen.keys.insert(key).then(|| {
            seen.trail.push(from);
            number_of(at, seen.trail.len() - 1)
        })
    }

    /// The moves that lead to the state at a place in the trail.
    pub(super) fn schedule(&self, mut at: u32) -> Vec<Move> {
        let mut moves = Vec::new();
        loop {
            let (table, place) = place_of(at);
            let Some((from, made)) = lock(&self.0[table]).trail[place] else { break };
            moves.push(made);
            at = from;
        }
        moves.reverse();
        moves
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|table| lock(table).trail.len() as u64).sum()
    }
}

/// Eight bytes a state.
const _: () = assert!(size_of::<Option<(u32, Move)>>() == 8);
