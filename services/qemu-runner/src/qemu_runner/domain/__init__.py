"""Values and rules of machines; the standard library only, and nothing here touches the host."""
