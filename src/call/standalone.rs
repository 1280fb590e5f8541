//! What lets a policy be used without a pipeline.

/// The ways to use a policy without a pipeline. They judge as [`DefaultClassifier`](crate::DefaultClassifier) does.
macro_rules! standalone {
    ([$($generics:tt)*] $policy:ty) => {
        impl<$($generics)*> $policy {
            /// Calls an operation under this policy alone: `Ok` is a success, `Err` is transient. A
            /// [`Pipeline`](crate::Pipeline) gives it a classifier, a name and an observer.
            ///
            /// # Errors
            ///
            /// The operation's own error, a timeout, or a rejection.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future cancels what is under way and gives back all that it holds.
            pub fn call<T, E, F, Fut>(
                &self,
                operation: F,
            ) -> impl Future<Output = Result<T, $crate::Error<E>>> + Send
            where
                Self: $crate::Policy<T, E>,
                F: Fn() -> Fut + Send + Sync,
                Fut: Future<Output = Result<T, E>> + Send,
                T: Send,
                E: Send,
            {
                let classified =
                    $crate::call::Classified { make: move |_: $crate::Context<'_>| operation(), classifier: &$crate::DefaultClassifier };
                $crate::call::drive($crate::event::Telemetry::SILENT, $crate::call::Unspecified, self, classified, $crate::call::result)
            }

            /// The same with options for this call, and a closure that is told about each attempt.
            ///
            /// # Errors
            ///
            /// The operation's own error, a timeout, or a rejection.
            pub fn call_with<T, E, F, Fut>(
                &self,
                options: $crate::CallOptions,
                operation: F,
            ) -> impl Future<Output = Result<T, $crate::Error<E>>> + Send
            where
                Self: $crate::Policy<T, E>,
                F: Fn($crate::Attempt) -> Fut + Send + Sync,
                Fut: Future<Output = Result<T, E>> + Send,
                T: Send,
                E: Send,
            {
                let make = move |cx: $crate::Context<'_>| operation(cx.to_attempt());
                let classified = $crate::call::Classified { make, classifier: &$crate::DefaultClassifier };
                let telemetry = $crate::event::Telemetry::SILENT;
                $crate::call::drive(telemetry, options, self, classified, $crate::call::result)
            }
        }
    };
}

/// The same for a policy that makes a single attempt: it can guard a future as well.
macro_rules! standalone_guard {
    ([$($generics:tt)*] $policy:ty) => {
        $crate::call::standalone!([$($generics)*] $policy);

        impl<$($generics)*> $crate::SingleAttempt for $policy {}

        impl<$($generics)*> $policy {
            /// Runs a single future under this policy alone.
            ///
            /// # Errors
            ///
            /// The future's own error, a timeout, or a rejection.
            pub fn guard<T, E, Fut>(
                &self,
                future: Fut,
            ) -> impl Future<Output = Result<T, $crate::Error<E>>> + Send
            where
                Self: $crate::Policy<T, E>,
                Fut: Future<Output = Result<T, E>> + Send,
                T: Send,
                E: Send,
            {
                $crate::call::guard($crate::event::Telemetry::SILENT, $crate::call::Unspecified, self, &$crate::DefaultClassifier, future)
            }
        }
    };
}

pub(crate) use {standalone, standalone_guard};
