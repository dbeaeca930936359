"""Prompts: sections rendered and tokenised once, shared positions found and aligned, questions with choices."""
