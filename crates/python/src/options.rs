//! Options of the handshake, for handles with set_opt_mode().

use crate::{
    arguments::Words,
    callback::{Callback, completion},
    handle::calls,
};

calls! {
    /// Open the export that set_export_name() chose.
    fn opt_go(h) -> () { h.aio_opt_go(None).and_then(|()| h.answer()).map(drop) }

    /// Ask about the export; what is known of it then can be asked of the handle.
    fn opt_info(h) -> () { h.aio_opt_info(None).and_then(|()| h.answer()).map(drop) }

    /// End the handshake without opening an export.
    fn opt_abort(h) -> () { h.aio_opt_abort().and_then(|()| h.answer()).map(drop) }

    /// Ask for TLS. False: the server has none.
    fn opt_starttls(h) -> bool { h.aio_opt_starttls(None).and_then(|()| h.answer()).map(|n| n == 1) }

    /// Ask for structured replies. False: the server has none.
    fn opt_structured_reply(h) -> bool {
        h.aio_opt_structured_reply(None).and_then(|()| h.answer()).map(|n| n == 1)
    }

    /// Ask for extended headers. False: the server has none.
    fn opt_extended_headers(h) -> bool {
        h.aio_opt_extended_headers(None).and_then(|()| h.answer()).map(|n| n == 1)
    }

    /// Have list(name, description) called with each export of the server; returns how many there are.
    fn opt_list(h, list: Callback) -> i32 { h.aio_opt_list(list.list(), None).and_then(|()| h.answer()) }

    /// Have context(name) called with each metadata context that answers to those of add_meta_context(), or with all if there
    /// are none; returns how many there are.
    fn opt_list_meta_context(h, context: Callback) -> i32 {
        h.aio_opt_list_contexts(None, context.context(), None).and_then(|()| h.answer())
    }

    /// As opt_list_meta_context(), with queries.
    fn opt_list_meta_context_queries(h, queries: Words, context: Callback) -> i32 {
        h.aio_opt_list_contexts(Some(queries.0), context.context(), None).and_then(|()| h.answer())
    }

    /// Choose the metadata contexts of add_meta_context() now, and have context(name) called with each that the server has.
    fn opt_set_meta_context(h, context: Callback) -> i32 {
        h.aio_opt_set_contexts(None, context.context(), None).and_then(|()| h.answer())
    }

    /// As opt_set_meta_context(), with queries.
    fn opt_set_meta_context_queries(h, queries: Words, context: Callback) -> i32 {
        h.aio_opt_set_contexts(Some(queries.0), context.context(), None).and_then(|()| h.answer())
    }

    /// Begin opt_go(); completion(error) hears of its end.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_go(h, completion: Option<Callback>) -> () { h.aio_opt_go(self::completion(completion)) }

    /// Begin opt_info(); completion(error) hears of its end.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_info(h, completion: Option<Callback>) -> () { h.aio_opt_info(self::completion(completion)) }

    /// Begin opt_abort().
    fn aio_opt_abort(h) -> () { h.aio_opt_abort() }

    /// Begin opt_starttls(); completion(error) hears of its end.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_starttls(h, completion: Option<Callback>) -> () { h.aio_opt_starttls(self::completion(completion)) }

    /// Begin opt_structured_reply(); completion(error) hears of its end.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_structured_reply(h, completion: Option<Callback>) -> () {
        h.aio_opt_structured_reply(self::completion(completion))
    }

    /// Begin opt_extended_headers(); completion(error) hears of its end.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_extended_headers(h, completion: Option<Callback>) -> () {
        h.aio_opt_extended_headers(self::completion(completion))
    }

    /// Begin opt_list(); completion(error) hears of its end.
    #[pyo3(signature = (list, completion=None))]
    fn aio_opt_list(h, list: Callback, completion: Option<Callback>) -> () {
        h.aio_opt_list(list.list(), self::completion(completion))
    }

    /// Begin opt_list_meta_context(); completion(error) hears of its end.
    #[pyo3(signature = (context, completion=None))]
    fn aio_opt_list_meta_context(h, context: Callback, completion: Option<Callback>) -> i32 {
        h.aio_opt_list_contexts(None, context.context(), self::completion(completion)).map(|()| 0)
    }

    /// Begin opt_list_meta_context_queries(); completion(error) hears of its end.
    #[pyo3(signature = (queries, context, completion=None))]
    fn aio_opt_list_meta_context_queries(
        h,
        queries: Words,
        context: Callback,
        completion: Option<Callback>,
    ) -> i32 {
        h.aio_opt_list_contexts(Some(queries.0), context.context(), self::completion(completion)).map(|()| 0)
    }

    /// Begin opt_set_meta_context(); completion(error) hears of its end.
    #[pyo3(signature = (context, completion=None))]
    fn aio_opt_set_meta_context(h, context: Callback, completion: Option<Callback>) -> i32 {
        h.aio_opt_set_contexts(None, context.context(), self::completion(completion)).map(|()| 0)
    }

    /// Begin opt_set_meta_context_queries(); completion(error) hears of its end.
    #[pyo3(signature = (queries, context, completion=None))]
    fn aio_opt_set_meta_context_queries(
        h,
        queries: Words,
        context: Callback,
        completion: Option<Callback>,
    ) -> i32 {
        h.aio_opt_set_contexts(Some(queries.0), context.context(), self::completion(completion)).map(|()| 0)
    }
}
