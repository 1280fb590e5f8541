//! The three traits that carry the crate, and how policies compose.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{bounds, context::Context, event::SharedTelemetry, layer::LayerInfo, outcome::Outcome};

/// Something that can be attempted, once or many times.
///
/// A policy is handed one and decides about its attempts. It is cheap to copy: references and small values.
///
/// Implemented by this crate for the closures that callers pass and for the layers inside a layer; a policy of one's
/// own only calls it.
pub trait Operation<T: Send, E: Send>: Copy + Send + Sync {
    /// Makes the future of one attempt. It does nothing before it is first polled, and dropping it cancels the attempt:
    /// a layer makes one as soon as it is run, and may drop it and make another. Drop it once it has ended: a layer
    /// may leave what has ended in its place.
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send;
}

/// Decides whether, when and how often an operation is attempted, and what becomes of the outcome.
///
/// A policy is a plain type with one `async` method:
///
/// ```
/// use withstand::{Context, Describe, Operation, Outcome, Policy};
///
/// /// Repeats once, at once, whatever went wrong.
/// struct OnceMore;
/// impl Describe for OnceMore {}
/// impl<T: Send, E: Send> Policy<T, E> for OnceMore {
///     async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
///         match op.attempt(cx.with_attempt(1)).await {
///             outcome if outcome.result.is_ok() => outcome,
///             _failed => op.attempt(cx.with_attempt(2)).await,
///         }
///     }
/// }
/// ```
///
/// Layers are run outside in: what an outer one hands inward as its operation is the inner one. Cancellation is
/// dropping: any of the futures may be dropped at any await point, so whatever is held is held by a guard.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no policy for a `Result<{T}, {E}>`",
    note = "a fallback or a `BoxPolicy` among the layers must be for the same types as the operation",
    note = "in generic code add the bound `P: Policy<T, E>`, and `C: Classify<T, E>` for the classifier"
)]
pub trait Policy<T: Send, E: Send>: Describe + Send + Sync {
    /// Makes the future of one run of the operation under this policy. It does nothing before it is first polled, as an
    /// `async fn` does nothing, and dropping it cancels what is under way.
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send;
}

/// What a policy tells about itself as data, whatever `T` and `E` are: for
/// [`explain()`](crate::Pipeline::explain), for validation across layers, for telemetry.
///
/// An empty `impl Describe for MyPolicy {}` shows the policy as custom, by its type's name, with bounds unknown.
pub trait Describe {
    /// Adds a description of each layer that this is made of, from the outside in.
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(LayerInfo::undescribed(std::any::type_name::<Self>()));
    }

    /// Tells the policy that it has become part of a pipeline, once for each. Most have no use for it.
    fn attach(&self, site: &Site<'_>) {
        let _ = site;
    }
}

/// The layers that a policy is made of, from the outside in.
pub(crate) fn layers_of(policy: &(impl Describe + ?Sized)) -> Vec<LayerInfo> {
    let mut layers = Vec::new();
    policy.describe(&mut layers);
    layers
}

/// The place of a policy in a pipeline that has just been built.
#[derive(Debug)]
pub struct Site<'a> {
    pub(crate) telemetry: &'a SharedTelemetry,
    pub(crate) inside: &'a [LayerInfo],
}

impl<'a> Site<'a> {
    /// The layers inside this one, from the outside in.
    #[must_use]
    pub const fn inside(&self) -> &'a [LayerInfo] {
        self.inside
    }

    /// The longest that an attempt through the layers inside can take, if they bound it.
    #[must_use]
    pub fn longest_inside(&self) -> Option<Duration> {
        bounds::of(self.inside).time.at_most()
    }
}

/// A policy that makes at most one attempt, so that [`guard`](crate::Pipeline::guard) can run a single future under it.
///
/// A policy that says so and makes a second one gets a rejection for it
/// ([`Reason::AlreadyAttempted`](crate::Reason::AlreadyAttempted)).
#[diagnostic::on_unimplemented(
    message = "`{Self}` may attempt the operation more than once, so it cannot guard a single future",
    label = "a layer in here repeats: a single future runs only once",
    note = "pass a closure that makes a new future for each attempt: `pipeline.call(|| client.get(id))`",
    note = "or guard with a pipeline of `Timeout`, `CircuitBreaker`, `Bulkhead` and `Fallback` only, without `Retry` and `Hedge`",
    note = "as a layer of tower: `PipelineLayer::new(pipeline)`, for requests that are `Clone`"
)]
pub trait SingleAttempt {}

/// Two policies as one: the outer is handed an operation that runs the inner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stack<Outer, Inner> {
    pub(crate) outer: Outer,
    pub(crate) inner: Inner,
}

impl<Outer, Inner> Stack<Outer, Inner> {
    /// The outer policy around the inner one.
    pub const fn new(outer: Outer, inner: Inner) -> Self {
        Self { outer, inner }
    }
}

/// The inner half of a stack, by reference, bound to the operation at its core.
#[derive(Clone, Copy)]
struct Inside<P, Op> {
    policy: P,
    op: Op,
}

impl<T: Send, E: Send, P: Policy<T, E>, Op: Operation<T, E>> Operation<T, E> for Inside<&P, Op> {
    #[inline]
    fn attempt(self, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        self.policy.run(self.op, cx)
    }
}

impl<T: Send, E: Send, Outer: Policy<T, E>, Inner: Policy<T, E>> Policy<T, E> for Stack<Outer, Inner> {
    // A plain call, not an async block: a layer of stacking costs no frame.
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        self.outer.run(Inside { policy: &self.inner, op }, cx)
    }
}

impl<Outer: Describe, Inner: Describe> Describe for Stack<Outer, Inner> {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        self.outer.describe(out);
        self.inner.describe(out);
    }

    fn attach(&self, site: &Site<'_>) {
        self.inner.attach(site);
        let mut inside = layers_of(&self.inner);
        inside.extend_from_slice(site.inside);
        self.outer.attach(&Site { telemetry: site.telemetry, inside: &inside });
    }
}

impl<Outer: SingleAttempt, Inner: SingleAttempt> SingleAttempt for Stack<Outer, Inner> {}

/// No policy: the operation is attempted once. What an empty pipeline is made of.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PassThrough;

impl Describe for PassThrough {
    fn describe(&self, _: &mut Vec<LayerInfo>) {}
}

impl<T: Send, E: Send> Policy<T, E> for PassThrough {
    #[inline]
    fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
        op.attempt(cx)
    }
}

impl SingleAttempt for PassThrough {}

/// Forwards the traits through a pointer to a policy.
macro_rules! forward {
    ($pointer:ty) => {
        impl<P: Describe + ?Sized> Describe for $pointer {
            fn describe(&self, out: &mut Vec<LayerInfo>) {
                (**self).describe(out);
            }

            fn attach(&self, site: &Site<'_>) {
                (**self).attach(site);
            }
        }

        impl<T: Send, E: Send, P: Policy<T, E>> Policy<T, E> for $pointer {
            #[inline]
            fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> impl Future<Output = Outcome<T, E>> + Send {
                (**self).run(op, cx)
            }
        }

        impl<P: SingleAttempt + ?Sized> SingleAttempt for $pointer {}
    };
}

forward!(&P);
forward!(Arc<P>);

/// `None` lets everything pass through.
impl<P: Describe> Describe for Option<P> {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        if let Some(policy) = self {
            policy.describe(out);
        }
    }

    fn attach(&self, site: &Site<'_>) {
        if let Some(policy) = self {
            policy.attach(site);
        }
    }
}

impl<T: Send, E: Send, P: Policy<T, E>> Policy<T, E> for Option<P> {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        match self {
            Some(policy) => policy.run(op, cx).await,
            None => op.attempt(cx).await,
        }
    }
}

impl<P: SingleAttempt> SingleAttempt for Option<P> {}

/// A policy whose type is erased: for a field that holds one of several, or for shorter compile times.
///
/// It allocates once for each run and once for each attempt, which the other ways of composing do not.
///
/// ```
/// use std::time::Duration;
/// use withstand::{BoxPolicy, Pipeline, Retry, Timeout, layers};
///
/// let patient = true;
/// let policy: BoxPolicy<String, std::io::Error> = if patient {
///     BoxPolicy::new(Retry::builder().build()?)
/// } else {
///     BoxPolicy::new(Timeout::new(Duration::from_secs(1))?)
/// };
/// // A pipeline of one layer gives it a name, a classifier and `call`.
/// let users: Pipeline<layers![BoxPolicy<String, std::io::Error>]> = Pipeline::builder("users-api").layer(policy).build()?;
/// # Ok::<(), withstand::ConfigError>(())
/// ```
pub struct BoxPolicy<T, E>(Box<dyn ErasedPolicy<T, E>>);

impl<T: Send, E: Send> BoxPolicy<T, E> {
    /// The policy without its type.
    pub fn new(policy: impl Policy<T, E> + 'static) -> Self {
        Self(Box::new(policy))
    }
}

impl<T, E> fmt::Debug for BoxPolicy<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoxPolicy").field(&layers_of(self)).finish()
    }
}

impl<T, E> Describe for BoxPolicy<T, E> {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        self.0.describe(out);
    }

    fn attach(&self, site: &Site<'_>) {
        self.0.attach(site);
    }
}

impl<T: Send, E: Send> Policy<T, E> for BoxPolicy<T, E> {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        self.0.run_erased(&op, cx).await
    }
}

/// The future of an erased method.
pub(crate) type Erased<'a, T, E> = Pin<Box<dyn Future<Output = Outcome<T, E>> + Send + 'a>>;

/// [`Policy`] with its generic method erased.
trait ErasedPolicy<T, E>: Describe + Send + Sync {
    fn run_erased<'a>(&'a self, op: &'a dyn ErasedOperation<T, E>, cx: Context<'a>) -> Erased<'a, T, E>
    where
        T: 'a,
        E: 'a;
}

impl<T: Send, E: Send, P: Policy<T, E>> ErasedPolicy<T, E> for P {
    fn run_erased<'a>(&'a self, op: &'a dyn ErasedOperation<T, E>, cx: Context<'a>) -> Erased<'a, T, E>
    where
        T: 'a,
        E: 'a,
    {
        Box::pin(self.run(op, cx))
    }
}

/// [`Operation`] with its method boxed, for layers whose types do not grow with what is inside of them.
pub(crate) trait ErasedOperation<T, E>: Send + Sync {
    fn attempt_erased<'a>(&'a self, cx: Context<'a>) -> Erased<'a, T, E>
    where
        T: 'a,
        E: 'a;
}

impl<T: Send, E: Send, Op: Operation<T, E>> ErasedOperation<T, E> for Op {
    fn attempt_erased<'a>(&'a self, cx: Context<'a>) -> Erased<'a, T, E>
    where
        T: 'a,
        E: 'a,
    {
        Box::pin((*self).attempt(cx))
    }
}

impl<T: Send, E: Send> Operation<T, E> for &dyn ErasedOperation<T, E> {
    async fn attempt(self, cx: Context<'_>) -> Outcome<T, E> {
        self.attempt_erased(cx).await
    }
}
