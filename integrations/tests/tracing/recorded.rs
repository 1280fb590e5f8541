//! A subscriber that notes everything.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

pub(crate) type Fields = BTreeMap<&'static str, String>;

/// What was told: an event, or a span that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) level: Level,
    pub(crate) fields: Fields,
    /// The spans around it, from the outside in.
    pub(crate) inside: Vec<&'static str>,
}

#[derive(Clone, Default)]
pub(crate) struct Recorded {
    events: Arc<Mutex<Vec<Told>>>,
    spans: Arc<Mutex<Vec<Told>>>,
    /// Entered less left.
    depth: Arc<Mutex<i32>>,
}

impl Recorded {
    /// For this thread, until the guard is dropped.
    pub(crate) fn install(level: LevelFilter) -> (Self, DefaultGuard) {
        let recorded = Self::default();
        let subscriber = Registry::default().with(recorded.clone().with_filter(level));
        (recorded, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn events(&self) -> Vec<Told> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.events().into_iter().map(|event| event.name).collect()
    }

    /// The spans of that name that have ended, in the order of their ends.
    pub(crate) fn spans(&self, name: &str) -> Vec<Told> {
        self.spans.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }

    pub(crate) fn depth(&self) -> i32 {
        *self.depth.lock().unwrap()
    }
}

struct Into<'f>(&'f mut Fields);

impl Visit for Into<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Recorded {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        record.record(&mut Into(extensions.get_mut().unwrap()));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        let inside = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let told = Told {
            name: fields.remove("message").unwrap_or_default(),
            target: event.metadata().target().to_owned(),
            level: *event.metadata().level(),
            fields,
            inside: inside.map(|span| span.name()).collect(),
        };
        self.events.lock().unwrap().push(told);
    }

    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        *self.depth.lock().unwrap() += 1;
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        *self.depth.lock().unwrap() -= 1;
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let told = Told {
            name: span.name().to_owned(),
            target: span.metadata().target().to_owned(),
            level: *span.metadata().level(),
            fields: span.extensions().get::<Fields>().unwrap().clone(),
            inside: span.scope().skip(1).map(|span| span.name()).collect(),
        };
        self.spans.lock().unwrap().push(told);
    }
}
