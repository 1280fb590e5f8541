//! The budget for extra load: successes fund it, retries and hedges spend it.

mod shards;

#[cfg(all(test, not(any(model_loom, model_shuttle))))]
mod tests;

use std::num::NonZeroU32;

use super::{
    refused::Refused,
    sync::{AtomicU64, Ordering},
    tuned::Tuned,
};
use shards::Shards;
pub(crate) use shards::Slot;

/// A balance of tokens: what was deposited less what is gone.
///
/// Each success deposits `ratio` of a token, each repeat withdraws a whole one. So while a dependency works there is
/// `ratio` to spend for every success; while it is down nothing is deposited, and the repeats end with the balance. With
/// a share `f` of failing attempts the load settles at `1 / (1 - ratio * (1 - f))` times the requests.
///
/// A deposit is one addition to the [shard](Shards) of its thread; into a full budget, the usual case, it is one load, and
/// into one that was emptied it is also a look at whether that has refilled it. A withdrawal adds the shards up and changes
/// the one word of what is gone, by a short compare-and-swap loop: by its token, and by what was deposited beyond the cap,
/// which is gone as soon as anybody would make use of it. Nothing waits, and no token is ever in anybody's hand: it is in
/// a shard, and then it is gone.
///
/// Under any interleaving `0 <= balance <= cap` and `withdrawn - refunded <= initial + deposited`, and below the cap what
/// was deposited and not withdrawn is there. One after the other, operations do exactly what they would do to a single
/// balance. What is weaker among those that overlap:
///
/// - A withdrawal may count a deposit as if it came after it, even if it counts others that began later.
/// - Between a deposit's addition and its look at what has come of it, others may act on it. If they withdraw it, it has
///   refilled nothing; if one who is refused looks first, the [edge](Edge) is theirs.
///
/// # Memory ordering
///
/// Whoever changes the word has added up the shards before, and releases that; whoever reads it acquires it, and then finds
/// no less in them, which are read relaxed: so what is gone is never more than what was deposited.
///
/// No refill by deposits goes untold, whatever is added where at the same time:
///
/// - A deposit looks at the word after its addition. Who has set [`EMPTIED`] goes to each shard after that, with a
///   read-modify-write that releases, as an addition is one that acquires: of the two on the same shard the later one
///   sees what came before the earlier one. So the deposit sees the flag, or the refused one sees the deposit.
/// - All who then look for a refill go to the word first, with a read-modify-write that acquires and releases: the last of
///   them sees what each has added.
///
/// A change of the cap changes the word [as well](CAPS), and releases that: a mark as [`FULL`] that was set before is put
/// right by the change, and who would set one later, to another cap, finds another word. Who sees a mark or none, and whoever
/// is refused once more, may have seen a slightly older value: it is as if it had come a moment earlier.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What is gone in micro-tokens, wrapping around, and the flags. At first it is less than nothing: the initial tokens.
    state: AtomicU64,
    /// What a success deposits, in micro-tokens.
    deposit: Tuned<u64>,
    initial: u32,
    cap: Tuned<u32>,
    id: NonZeroU32,
    shards: Shards,
}

/// One token. A millionth is the smallest deposit: tokens do not quantise, a ratio of 0.35 is 35 %.
const TOKEN: u64 = 1_000_000;

/// The bit that is set from the first refusal until the budget has [refilled](Edge::Refilled), so that each change is
/// reported once.
const EMPTIED: u64 = 1 << 63;

/// The bit that is set when the budget was seen to hold the cap, until a token is taken: a look at the shards less.
const FULL: u64 = 1 << 62;

/// The bits that count the changes of the cap, modulo sixteen: who still knows another cap finds another word and begins
/// anew, unless there were so many changes meanwhile.
const CAPS: u64 = !(FULL | EMPTIED | GONE);
const ANOTHER_CAP: u64 = 1 << 58;

/// What is gone. Differences are true, since they stay far below it: 2^32 tokens are less than 2^52 millionths, and
/// deposits beyond the cap are noticed soon.
const GONE: u64 = ANOTHER_CAP - 1;

/// A deposit looks whether the budget is full whenever its shard has grown by about this part of the cap: of 100 tokens
/// every fifth, at a ratio of 0.2. More often and threads disturb each other; less often, and after each repeat more
/// deposits are made that change nothing.
const LOOKS_PER_CAP: u64 = 64;

/// A change that is worth an event. The two alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an edge is reported once"]
pub(crate) enum Edge {
    /// A withdrawal was refused, the first one since the budget was created or refilled.
    Emptied,
    /// After having been emptied the balance is at least half of the cap again, and at least a token. The distance
    /// between the two keeps a budget that lives from hand to mouth from reporting every token.
    Refilled,
}

/// The answer to [`Budget::withdraw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a withdrawal may be refused"]
pub(crate) enum Withdrawal {
    /// A token was taken.
    Granted,
    /// There was less than a token; the budget is unchanged. Two edges, in this order, if a deposit at the same moment has
    /// refilled it.
    Refused { edges: [Option<Edge>; 2] },
}

/// The balance, and whether it counts as emptied.
#[derive(Clone, Copy)]
struct Held {
    balance: u64,
    emptied: bool,
}

impl Budget {
    /// `ratio` in `[0, 1]` is rounded to a millionth, but a positive one never to zero. `initial` and `cap` are whole tokens.
    pub(crate) fn new(ratio: f64, initial: u32, cap: u32) -> Result<Self, Refused> {
        check_ratio(ratio)?;
        if initial > cap {
            return Err(Refused {
                field: "initial",
                value: format!("{initial} with a cap of {cap}"),
                accepted: "at most the cap",
            });
        }
        let held = Held { balance: micros(initial), emptied: false };
        Ok(Self {
            state: AtomicU64::new(state_of(held, 0, micros(cap))),
            deposit: Tuned::new(millionths(ratio)),
            initial,
            cap: Tuned::new(cap),
            id: next_id(),
            shards: Shards::new(),
        })
    }

    /// Changes ratio and cap. What the balance holds above either cap is gone.
    #[cfg(any(feature = "serde", test))]
    pub(crate) fn set(&self, ratio: f64, cap: u32) {
        self.clip();
        self.deposit.set(millionths(ratio));
        self.cap.set(cap);
        // Whoever has marked it as full before is seen by what follows, who would mark it later sees the new cap.
        let changed = |state: u64| Some(state & !CAPS | state.wrapping_add(ANOTHER_CAP) & CAPS);
        let _always = self.state.fetch_update(Ordering::Release, Ordering::Relaxed, changed);
        self.clip();
    }

    /// Whether a deposit would change nothing. The usual case: asked first, since a look is no write, and the successes of
    /// many cores share the word's cache line.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        // One that counts as empty, and that a lower cap has filled, has yet to be told as refilled.
        self.state.load(Ordering::Relaxed) & (FULL | EMPTIED) == FULL
    }

    /// A success: adds the ratio, up to the cap.
    pub(crate) fn deposit(&self, slot: Slot) -> Option<Edge> {
        let amount = self.deposit.get();
        if amount == 0 || self.is_marked(FULL) {
            // Nothing to add. Whether a lower cap or a refund has refilled it is left to see.
            return self.add(0);
        }
        self.put_in(slot, amount)
    }

    /// A repeat that never reached the dependency: gives its token back, up to the cap. If that refills the budget, it is
    /// the next deposit that says so: who gives a token back may be in the middle of a panic.
    pub(crate) fn refund(&self, slot: Slot) {
        if self.is_marked(FULL) {
            return;
        }
        match self.shards.of_slot(slot) {
            // Acquire, for the next deposit: it is to know of a refusal that has been at this shard before.
            Some(shard) => _ = shard.fetch_add(TOKEN, Ordering::Acquire),
            None => self.change(|held, cap| {
                let balance = held.balance.saturating_add(TOKEN).min(cap);
                (Held { balance, ..held }, ())
            }),
        }
    }

    /// Takes a token for one repeat, if there is one.
    pub(crate) fn withdraw(&self) -> Withdrawal {
        let (granted, emptied) = self.change(|held, _| match held.balance.checked_sub(TOKEN) {
            Some(balance) => (Held { balance, ..held }, (true, false)),
            None => (Held { emptied: true, ..held }, (false, !held.emptied)),
        });
        if granted {
            return Withdrawal::Granted;
        }
        let mut edges = [None; 2];
        if emptied {
            self.shards.meet();
            edges = [Some(Edge::Emptied), self.refilled()];
        }
        Withdrawal::Refused { edges }
    }

    /// The tokens that are left: while others deposit and withdraw, what it was about now.
    pub(crate) fn balance(&self) -> f64 {
        let state = self.state.load(Ordering::Acquire);
        tokens(held(state, self.shards.total(), micros(self.cap.get())).balance)
    }

    /// The most tokens that the budget holds.
    pub(crate) fn cap(&self) -> u32 {
        self.cap.get()
    }

    /// The tokens that the budget began with.
    pub(crate) fn initial(&self) -> u32 {
        self.initial
    }

    /// What a success deposits, as a share of a token.
    pub(crate) fn ratio(&self) -> f64 {
        tokens(self.deposit.get())
    }

    /// Tells this budget from every other one in the process.
    #[inline]
    pub(crate) fn id(&self) -> NonZeroU32 {
        self.id
    }

    fn is_marked(&self, flag: u64) -> bool {
        self.state.load(Ordering::Relaxed) & flag != 0
    }

    fn put_in(&self, slot: Slot, amount: u64) -> Option<Edge> {
        let Some(shard) = self.shards.of_slot(slot) else {
            return self.add(amount);
        };
        let before = shard.fetch_add(amount, Ordering::Acquire);
        if self.is_marked(EMPTIED) {
            return self.refilled();
        }
        // The binary digits that have changed. One of some size, or a higher one, does so once in half to twice that size.
        let changed = before ^ before.wrapping_add(amount);
        if changed >= micros(self.cap.get()) / LOOKS_PER_CAP { self.add(0) } else { None }
    }

    /// Sees whether what is in the shards has refilled it. Of all who look at the same time the last one sees all of it.
    fn refilled(&self) -> Option<Edge> {
        self.state.fetch_add(0, Ordering::AcqRel);
        self.add(0)
    }

    /// Adds to the balance, up to the cap, and sees whether it is refilled.
    fn add(&self, amount: u64) -> Option<Edge> {
        self.change(|held, cap| {
            let balance = held.balance.saturating_add(amount).min(cap);
            // With a cap of zero it is never reached.
            let refilled = held.emptied && balance >= (cap / 2).max(TOKEN);
            (Held { balance, emptied: held.emptied && !refilled }, refilled.then_some(Edge::Refilled))
        })
    }

    /// What is above the cap is gone. Without news: whether it is refilled is for a deposit to find.
    #[cfg(any(feature = "serde", test))]
    fn clip(&self) {
        self.change(|held, _| (held, ()));
    }

    /// Everything that changes the word. Knows the cap, and gives it what comes of a balance that is within it.
    fn change<A>(&self, change: impl Fn(Held, u64) -> (Held, A)) -> A {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let (cap, total) = (micros(self.cap.get()), self.shards.total());
            let (after, answer) = change(held(state, total, cap), cap);
            let next = state & CAPS | state_of(after, total, cap);
            if next == state {
                return answer;
            }
            // Weak, as it is in a loop.
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return answer,
                Err(current) => state = current,
            }
        }
    }
}

/// What is left of so much that was deposited.
fn held(state: u64, total: u64, cap: u64) -> Held {
    let balance = total.wrapping_sub(state) & GONE;
    Held { balance: balance.min(cap), emptied: state & EMPTIED != 0 }
}

/// The word for what is left of so much that was deposited, without the count of [`CAPS`].
fn state_of(held: Held, total: u64, cap: u64) -> u64 {
    let full = if held.balance == cap { FULL } else { 0 };
    let emptied = if held.emptied { EMPTIED } else { 0 };
    total.wrapping_sub(held.balance) & GONE | full | emptied
}

pub(crate) fn check_ratio(ratio: f64) -> Result<(), Refused> {
    if (0.0..=1.0).contains(&ratio) {
        return Ok(());
    }
    Err(Refused { field: "ratio", value: ratio.to_string(), accepted: "a number from 0 to 1" })
}

#[inline]
fn micros(tokens: u32) -> u64 {
    u64::from(tokens).saturating_mul(TOKEN)
}

/// Micro-tokens in tokens, exactly: no balance has more than 52 bits.
fn tokens(micros: u64) -> f64 {
    let part = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    part(micros / TOKEN) + part(micros % TOKEN) / 1e6
}

/// The ratio in micro-tokens; 0 only if it is 0.
fn millionths(ratio: f64) -> u64 {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the standard library has no other conversion; rounded, and from [0, 1] by the check in `new`"
    )]
    let rounded = (ratio * 1e6).round() as u64;
    if ratio > 0.0 { rounded.max(1) } else { 0 }
}

/// Numbers start over after four thousand million budgets.
fn next_id() -> NonZeroU32 {
    // Not through `sync`: loom's atomics cannot live in a static, and there is no interleaving to check in one counter.
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Relaxed: only distinctness counts.
    NonZeroU32::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
}
