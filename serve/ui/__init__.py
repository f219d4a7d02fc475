"""The web page for domain experts: Streamlit, and nothing but the HTTP API behind it."""
