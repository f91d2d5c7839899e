//! What a test becomes.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Error, LitStr, parse2};

use crate::arguments::{Allow, Arguments, Flavor};
use crate::function::Function;

/// The test, or where something is wrong the function as it is and what is wrong: so
/// editors still complete what is in it.
pub(crate) fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let parsed = parse2::<Function>(item.clone())
        .and_then(|function| Ok((function, parse2::<Arguments>(arguments)?)));
    match parsed {
        Ok((function, arguments)) => match function.second_test() {
            None => expand(&function, &arguments),
            // Alone: a test of the other kind would have errors of its own.
            Some(second) => Error::new_spanned(
                second,
                "this is a test twice: take this attribute away, `#[stallscope::test]` does the \
                 same",
            )
            .into_compile_error(),
        },
        Err(error) => {
            let error: Error = error;
            let error = error.into_compile_error();
            quote! { #item #error }
        }
    }
}

fn expand(function: &Function, arguments: &Arguments) -> TokenStream {
    let Function {
        attributes,
        visibility,
        name,
        output,
        body,
    } = function;
    let returned = function.returned();
    let hidden = match &arguments.krate {
        Some(path) => quote! { #path::macros },
        None => quote! { ::stallscope::macros },
    };
    let settings = settings(arguments);
    let runtime = runtime(arguments, &hidden);
    let run = if function.should_panic() {
        quote! { run_to_panic }
    } else {
        quote! { run }
    };
    let shown = LitStr::new(&format!("::{}", name.unraw()), name.span());
    // The body is one expression, so that it sees no variable of ours.
    quote! {
        #(#attributes)*
        #[::core::prelude::v1::test]
        #visibility fn #name() #output {
            let body = async #body;
            let body = ::core::pin::pin!(body);
            let body: #hidden::Body<'_, #returned> = body;
            #hidden::Test::new(::core::concat!(::core::module_path!(), #shown))
                #settings
                .#run(
                    body,
                    |body| {
                        let runtime = #runtime?;
                        runtime.block_on(body);
                        ::core::result::Result::Ok(())
                    },
                    |text| #hidden::eprintln!("{}", text),
                )
        }
    }
}

fn settings(arguments: &Arguments) -> TokenStream {
    let mut settings = TokenStream::new();
    if let Some((under, span)) = arguments.under {
        let (seconds, nanos) = (under.as_secs(), under.subsec_nanos());
        settings.extend(quote_spanned! {span=>
            .under(::core::time::Duration::new(#seconds, #nanos))
        });
    }
    if arguments.no_blocking {
        settings.extend(quote! { .no_blocking() });
    }
    if arguments.whole_runtime {
        settings.extend(quote! { .whole_runtime() });
    }
    match &arguments.allow {
        Some(Allow::Functions(functions)) => {
            let entries = functions.iter().map(|(function, reason)| match reason {
                Some(reason) => quote! { (#function, #reason) },
                None => quote! { (#function, "") },
            });
            settings.extend(quote! { .allow(&[#(#entries),*]) });
        }
        Some(Allow::List(list)) => settings.extend(quote! { .allow(#list) }),
        None => {}
    }
    settings
}

/// An expression of type `io::Result<Runtime>`.
fn runtime(arguments: &Arguments, hidden: &TokenStream) -> TokenStream {
    let tokio = quote! { #hidden::tokio::runtime };
    // What tokio does not have without a feature is an error at the argument that asks for it.
    let at = arguments
        .flavor
        .map_or_else(Span::call_site, |(_, span)| span);
    let (new, build) = match arguments.flavor() {
        Flavor::CurrentThread => ("new_current_thread", quote! { build() }),
        Flavor::MultiThread => ("new_multi_thread", quote! { build() }),
        Flavor::Local => (
            "new_current_thread",
            quote! { build_local(::core::default::Default::default()) },
        ),
    };
    let new = Ident::new(new, Span::call_site().located_at(at));
    let mut builder = quote! { #tokio::Builder::#new().enable_all() };
    if let Some(threads) = &arguments.worker_threads {
        builder.extend(quote! { .worker_threads(#threads) });
    }
    if let Some(paused) = &arguments.start_paused {
        builder.extend(quote_spanned! {paused.span()=> .start_paused(#paused) });
    }
    if let Some(behavior) = &arguments.unhandled_panic {
        builder.extend(quote_spanned! {behavior.span()=>
            .unhandled_panic(#tokio::UnhandledPanic::#behavior)
        });
    }
    if let Some(name) = &arguments.name {
        builder.extend(quote! { .name(#name) });
    }
    quote! { #builder.#build }
}
