"""What web_demo.py serves beside its Gradio page."""
