//! What looks wrong though it can work: one function for each kind of layer, one paragraph for each mistake.

use std::time::Duration;

use super::{
    place::{Place, The, fixed_delay, places, shortest_limit},
    warning::{Warning, WarningKind},
};
use crate::{
    bounds,
    event::Kind,
    layer::{BudgetInfo, LayerInfo, Role},
};

/// The warnings about a pipeline of these layers, from the outside in.
pub(super) fn warnings(layers: &[LayerInfo], classified: bool) -> Vec<Warning> {
    let mut found = Findings(Vec::new());
    whole(layers, &mut found);
    for place in places(layers) {
        match place.layer.role {
            Role::Timeout { .. } | Role::Custom { .. } => {}
            Role::Retry { .. } => retry(&place, classified, &mut found),
            Role::Hedge { hedges, budget, .. } => hedge(&place, hedges, budget, &mut found),
            Role::CircuitBreaker { slow_call, .. } => breaker(&place, slow_call, &mut found),
            Role::Bulkhead { limit, queue, max_wait } => {
                bulkhead(&place, limit, (queue > 0).then_some(max_wait), &mut found);
            }
            Role::Fallback { limit, .. } => fallback(&place, limit.is_some(), &mut found),
            #[cfg(feature = "chaos")]
            Role::Chaos { on, .. } => chaos(&place, on, &mut found),
        }
    }
    found.0
}

struct Findings(Vec<Warning>);

impl Findings {
    fn add<const N: usize>(&mut self, kind: WarningKind, policies: [&LayerInfo; N], text: String) {
        let policies = policies.iter().map(|layer| layer.name().clone()).collect();
        self.0.push(Warning::new(kind, policies, text));
    }
}

fn whole(layers: &[LayerInfo], found: &mut Findings) {
    let bounds = bounds::of(layers);
    if bounds.time_without_hints.is_unbounded() {
        let text = "no timeout limits the time of a call: one that hangs does so for ever; \
                    add one for the whole call, outermost, and one for each attempt, innermost";
        found.add(WarningKind::NoTimeout, [], text.to_owned());
    } else if bounds.time.is_unbounded() {
        let text = "a server that asks to come back late can make a call last without limit; \
                    add a timeout for the whole call, outermost";
        found.add(WarningKind::NoTotalTimeout, [], text.to_owned());
    }
}

fn retry(place: &Place<'_>, classified: bool, found: &mut Findings) {
    let layer = place.layer;
    let this = The(layer);
    let Role::Retry { attempts, waits, max_elapsed, budget, .. } = layer.role else { return };
    if attempts < 2 {
        let text = format!("{this} makes a single attempt: max_attempts counts the first one; allow 2 or leave it out");
        found.add(WarningKind::SingleAttemptRetry, [layer], text);
        return;
    }
    if !classified {
        let text = format!(
            "without a classifier {this} repeats every error, also those that will never succeed; \
             tell them apart with classify_errors(..)"
        );
        found.add(WarningKind::NoClassifier, [layer], text);
    }
    payment(layer, budget, found);
    retry_in_time(place, attempts, waits, found);
    if let (Some(elapsed), Some(around)) = (max_elapsed, place.shortest_limit_outside()) {
        if elapsed >= around.limit {
            let text = format!(
                "max_elapsed of {this} is {elapsed:?}, but {around} ends the call after {:?}; shorten it or leave it out",
                around.limit
            );
            found.add(WarningKind::UselessMaxElapsed, [layer, around.layer], text);
        }
    }
    nested_retries(place, found);
}

/// Several attempts within one timeout: there must be time for more than one.
fn retry_in_time(place: &Place<'_>, attempts: u32, waits: Option<Duration>, found: &mut Findings) {
    let Some(around) = place.shortest_limit_outside() else { return };
    let (layer, this, limit) = (place.layer, The(place.layer), around.limit);
    let inside = bounds::of(place.inside).time_without_hints;
    if inside.is_unbounded() {
        let text = format!(
            "no timeout is inside {this}: an attempt that hangs uses up all of the {limit:?} of {around} and is never \
             repeated; add one for each attempt, innermost"
        );
        found.add(WarningKind::NoAttemptTimeout, [layer, around.layer], text);
    }
    let longest = bounds::of(place.onward).time_without_hints.at_most();
    if let Some(longest) = longest.filter(|longest| *longest > limit) {
        let text = format!(
            "{attempts} attempts of {this} with their waits can take {longest:?}, but {around} ends them after \
             {limit:?}; allow fewer attempts or less time for each"
        );
        found.add(WarningKind::RetriesExceedTimeout, [layer, around.layer], text);
    } else if let (None, Some(waits)) = (longest, waits.filter(|waits| *waits >= limit)) {
        let text = format!(
            "the waits of {this} alone can take {waits:?}, but {around} ends the call after {limit:?}; lower the cap of \
             the backoff or allow fewer attempts"
        );
        found.add(WarningKind::RetriesExceedTimeout, [layer, around.layer], text);
    }
}

fn nested_retries(place: &Place<'_>, found: &mut Findings) {
    let Some(inner) = place.retry_inside() else { return };
    let (this, other) = (The(place.layer), The(inner));
    let (all, once) = (bounds::of(place.onward).attempts, bounds::of(place.inside).attempts);
    let rejections = matches!(place.layer.role, Role::Retry { repeats_rejected: true, .. });
    let text = if all != once && !rejections {
        format!(
            "{this} repeats what {other} inside it has repeated: one call makes up to {all} attempts; keep one of them"
        )
    } else if rejections {
        format!(
            "{this} repeats what was rejected inside {other}: one call makes up to {all} attempts; keep one of them"
        )
    } else {
        format!("{this} does nothing: it does not repeat what {other} inside it has given up on; keep one of them")
    };
    found.add(WarningKind::NestedRetries, [place.layer, inner], text);
}

fn hedge(place: &Place<'_>, hedges: u32, budget: Option<BudgetInfo>, found: &mut Findings) {
    let layer = place.layer;
    let this = The(layer);
    payment(layer, budget, found);
    let all = bounds::of(place.onward).attempts;
    if let Some(retry) = place.retry_inside() {
        let text = format!(
            "{this} is outside of {}: each attempt of it is retried, up to {all} attempts for one call; put it inside",
            The(retry)
        );
        found.add(WarningKind::HedgeOutsideRetry, [layer, retry], text);
    }
    if let Some(other) = place.first_inside(Kind::Hedge) {
        let text = format!("{this} hedges what {} hedges, up to {all} attempts for one call; keep one", The(other));
        found.add(WarningKind::NestedHedges, [layer, other], text);
    }
    if let (Some(delay), Some(inside)) = (fixed_delay(layer), shortest_limit(place.inside)) {
        if delay >= inside.limit {
            let text = format!(
                "{this} waits {delay:?}, but {inside} ends an attempt after {:?}: a slow one is never hedged; \
                 shorten the delay",
                inside.limit
            );
            found.add(WarningKind::HedgeTooLate, [layer, inside.layer], text);
        }
    }
    for bulkhead in place.inside {
        let Role::Bulkhead { limit: permits @ 1.., .. } = bulkhead.role else { continue };
        if usize::try_from(hedges).is_ok_and(|hedges| permits <= hedges) {
            let text = format!(
                "{this} makes up to {hedges} attempts besides the first, but {} has {permits} permits in all; \
                 raise its limit",
                The(bulkhead)
            );
            found.add(WarningKind::HedgeExceedsBulkhead, [layer, bulkhead], text);
        }
    }
}

/// What a retry or a hedge pays for its repeats.
fn payment(layer: &LayerInfo, budget: Option<BudgetInfo>, found: &mut Findings) {
    let this = The(layer);
    match budget {
        None => {
            let text = format!(
                "{this} has no budget: it multiplies the load for as long as an outage lasts; \
                 leave out without_budget()"
            );
            found.add(WarningKind::NoBudget, [layer], text);
        }
        Some(BudgetInfo { cap: 0, .. }) => {
            let text = format!("the budget of {this} holds nothing: it never repeats; raise the cap");
            found.add(WarningKind::UselessBudget, [layer], text);
        }
        Some(BudgetInfo { ratio, .. }) if ratio <= 0.0 => {
            let text = format!(
                "no success refills the budget of {this}: once it is spent it never repeats again; raise the ratio"
            );
            found.add(WarningKind::UselessBudget, [layer], text);
        }
        Some(_) => {}
    }
}

fn breaker(place: &Place<'_>, slow_call: Option<Duration>, found: &mut Findings) {
    let layer = place.layer;
    let this = The(layer);
    if let Some(retry) = place.retry_inside() {
        let text = format!(
            "{this} is outside of {}: it sees one result of all the attempts, and stops none that follow; put it inside",
            The(retry)
        );
        found.add(WarningKind::BreakerOutsideRetry, [layer, retry], text);
    }
    if let Some(hedge) = place.first_inside(Kind::Hedge) {
        let text = format!(
            "{this} is outside of {}: it sees one result of the race, and a probe is hedged; put it inside",
            The(hedge)
        );
        found.add(WarningKind::BreakerOutsideHedge, [layer, hedge], text);
    }
    let hangs = bounds::of(place.inside).time_without_hints.is_unbounded();
    if let (Some(around), true) = (place.shortest_limit_outside(), hangs) {
        let text = format!(
            "no timeout is inside {this}: it learns of a call that hangs only when {around} drops it; \
             add one for each attempt, innermost"
        );
        found.add(WarningKind::BreakerOutsideTimeout, [layer, around.layer], text);
    }
    let limit = shortest_limit(place.outside.iter().chain(place.inside));
    if let (Some(slow), Some(limit)) = (slow_call, limit) {
        if slow >= limit.limit {
            let text = format!(
                "{this} calls slow what takes {slow:?}, but {limit} ends it after {:?}; shorten slow_call",
                limit.limit
            );
            found.add(WarningKind::UnreachableSlowCall, [layer, limit.layer], text);
        }
    }
    let queues = |layer: &&LayerInfo| matches!(layer.role, Role::Bulkhead { queue: 1.., .. });
    if let Some(queue) = place.inside.iter().find(queues) {
        let text = format!(
            "{this} is outside of the queue of {}: a call that waits there was admitted by the state of before; \
             put the bulkhead outside",
            The(queue)
        );
        found.add(WarningKind::QueueInsideBreaker, [layer, queue], text);
    }
}

fn bulkhead(place: &Place<'_>, limit: usize, max_wait: Option<Duration>, found: &mut Findings) {
    let layer = place.layer;
    let this = The(layer);
    if limit == 0 {
        let text = format!("{this} has a limit of 0: it rejects every call; raise it");
        found.add(WarningKind::ClosedBulkhead, [layer], text);
    }
    if let Some(retry) = place.retry_inside() {
        let text = format!(
            "{this} is outside of {}: a call keeps its permit while it waits to be repeated; put it inside",
            The(retry)
        );
        found.add(WarningKind::BulkheadOutsideRetry, [layer, retry], text);
    }
    let Some(wait) = max_wait else { return };
    let around = place.shortest_attempt_limit_outside().filter(|around| wait >= around.limit);
    let inside = shortest_limit(place.inside).filter(|inside| wait > inside.limit);
    if let Some(attempt) = around.or(inside) {
        let text = format!(
            "a call may wait {wait:?} in the queue of {this}, longer than the {:?} that {attempt} allows an attempt; \
             a tenth of that is enough",
            attempt.limit
        );
        found.add(WarningKind::QueueExceedsTimeout, [layer, attempt.layer], text);
    }
}

fn fallback(place: &Place<'_>, waits: bool, found: &mut Findings) {
    let layer = place.layer;
    let this = The(layer);
    if let (Some(around), true) = (place.shortest_limit_outside(), waits) {
        let text = format!("{this} is inside {around}, which may have no time left when it begins; put it outermost");
        found.add(WarningKind::FallbackInsideTimeout, [layer, around.layer], text);
        return;
    }
    for outer in place.outside {
        let text = match outer.kind() {
            Kind::Timeout | Kind::CircuitBreaker | Kind::Bulkhead => {
                format!(
                    "{this} is inside {} and does not answer for what that ends or refuses; put it outermost",
                    The(outer)
                )
            }
            Kind::Retry | Kind::Hedge => {
                format!("{this} is inside {}, which does not repeat what it answers; put it outermost", The(outer))
            }
            Kind::Fallback | Kind::Custom => continue,
            #[cfg(feature = "chaos")]
            Kind::Chaos => continue,
            #[cfg(feature = "keyed")]
            Kind::Keyed => continue,
        };
        found.add(WarningKind::FallbackNotOutermost, [layer, outer], text);
        return;
    }
}

#[cfg(feature = "chaos")]
fn chaos(place: &Place<'_>, on: bool, found: &mut Findings) {
    let layer = place.layer;
    let this = The(layer);
    if on {
        let text = format!("{this} is on: calls fail on purpose; switch it off unless that is meant");
        found.add(WarningKind::ChaosEnabled, [layer], text);
    }
    let blind = |inside: &&LayerInfo| !matches!(inside.kind(), Kind::Chaos | Kind::Custom);
    if let Some(inside) = place.inside.iter().find(blind) {
        let text = format!("{this} is outside of {}, which sees none of its faults; put it innermost", The(inside));
        found.add(WarningKind::ChaosNotInnermost, [layer, inside], text);
    }
}
