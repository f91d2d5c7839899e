//! The function that the attribute stands on.

use proc_macro2::{Delimiter, Group, Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::{
    Abi, AttrStyle, Attribute, Error, Generics, Path, Result, ReturnType, Token, Type, Visibility,
    WhereClause, braced, parenthesized,
};

/// An async function without parameters, as a test is.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) name: Ident,
    pub(crate) output: ReturnType,
    /// With its braces.
    pub(crate) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        input.parse::<Option<Token![const]>>()?;
        let asynchronous = input.parse::<Option<Token![async]>>()?;
        let is_unsafe = input.parse::<Option<Token![unsafe]>>()?;
        let abi = input.parse::<Option<Abi>>()?;
        let Ok(of_function) = input.parse::<Token![fn]>() else {
            return Err(input.error("`#[stallscope::test]` is for async functions"));
        };
        let name: Ident = input.parse()?;
        let generics: Generics = input.parse()?;
        let parameters;
        parenthesized!(parameters in input);
        let parameters: TokenStream = parameters.parse()?;
        let output: ReturnType = input.parse()?;
        let bounds: Option<WhereClause> = input.parse()?;
        let content;
        let braces = braced!(content in input);
        // On a block they would mean nothing.
        attributes.extend(Attribute::parse_inner(&content)?.into_iter().map(outer));
        let mut body = Group::new(Delimiter::Brace, content.parse()?);
        body.set_span(braces.span.join());

        if asynchronous.is_none() {
            let problem = format!(
                "a test with `#[stallscope::test]` must be async: `async fn {name}`. One that \
                 is not has no future to audit; `#[test]` is for it"
            );
            return Err(Error::new_spanned(of_function, problem));
        }
        if let Some(is_unsafe) = is_unsafe {
            let problem = "a test cannot be unsafe: its harness calls it";
            return Err(Error::new_spanned(is_unsafe, problem));
        }
        if let Some(abi) = abi {
            return Err(Error::new_spanned(
                abi,
                "a test has Rust's calling convention",
            ));
        }
        if !generics.params.is_empty() {
            let problem = "a test cannot be generic: nobody says for which types it is to run";
            return Err(Error::new_spanned(generics, problem));
        }
        if !parameters.is_empty() {
            let problem = "a test has no parameters: its harness passes none";
            return Err(Error::new_spanned(parameters, problem));
        }
        if let Some(bounds) = bounds {
            return Err(Error::new_spanned(bounds, "a test cannot be generic"));
        }
        if let ReturnType::Type(_, returned) = &output
            && matches!(**returned, Type::ImplTrait(_) | Type::Never(_))
        {
            let problem = "a test returns `()` or a type that has a name, like `Result<(), E>`";
            return Err(Error::new_spanned(returned, problem));
        }
        Ok(Function {
            attributes,
            visibility,
            name,
            output,
            body,
        })
    }
}

fn outer(mut attribute: Attribute) -> Attribute {
    attribute.style = AttrStyle::Outer;
    attribute
}

impl Function {
    pub(crate) fn returned(&self) -> TokenStream {
        match &self.output {
            ReturnType::Default => quote! { () },
            ReturnType::Type(_, returned) => returned.to_token_stream(),
        }
    }

    /// Whether its harness expects a panic of it.
    pub(crate) fn should_panic(&self) -> bool {
        let expected = self.attributes.iter();
        let expected = expected
            .map(Attribute::path)
            .any(|path| path.is_ident("should_panic"));
        // Of another type the compiler refuses it.
        let returns_nothing = match &self.output {
            ReturnType::Default => true,
            ReturnType::Type(_, returned) => {
                matches!(&**returned, Type::Tuple(tuple) if tuple.elems.is_empty())
            }
        };
        expected && returns_nothing
    }

    /// An attribute that makes it a test, too.
    pub(crate) fn second_test(&self) -> Option<&Attribute> {
        let is_test = |path: &Path| {
            let segments: Vec<String> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            matches!(
                segments[..],
                ["test"]
                    | ["tokio" | "stallscope", "test"]
                    | ["core" | "std", "prelude", _, "test"]
            )
        };
        self.attributes
            .iter()
            .find(|attribute| is_test(attribute.path()))
    }
}
