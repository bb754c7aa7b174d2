"""Tables computed from records and from the published tables: values, gains, claims, speed-up. No training code."""
