"""What web_demo.py serves besides its Gradio page."""
